"""Packed data sets: decoded frames in shards that are mapped into memory.

A packed folder holds `shard-00000.u8`, `shard-00001.u8`, ... and `index.json` (records, places, checksums). A clip lies
plane by plane, (3, T, H, W), as batches have it: a window of frames is three runs of bytes, and collating a batch is
the only copy that is made. Clips stand in the shards in the order of the index, so that shards can be read one after
the other (see `vgen.data.sampling.ShardSampler`).
"""

import itertools
import json
import logging
import multiprocessing
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vgen.data.clips import ClipIndex, ClipRecord
from vgen.data.sampling import Indices
from vgen.data.transforms import Crop, Filter, Pixels, Resize, default_filter, fit, resize
from vgen.errors import UserError, one_line
from vgen.files import atomic_path, write_text
from vgen.video.io import UnreadableVideo

_FORMAT = 2  # 1: all clips in one file, frame by frame
_INDEX = "index.json"
SHARD_BYTES = 256 << 20  # what a crash may cost each process, and the grain of reading in order
_log = logging.getLogger(__name__)


class _Reader(Protocol):
    def read(self, record: ClipRecord, indices: Indices) -> Pixels: ...


@dataclass(frozen=True)
class _Stored:
    """Where a clip is: shard, first byte, (T, H, W), checksum."""

    shard: int
    offset: int
    shape: tuple[int, int, int]
    crc: int

    @property
    def end(self) -> int:
        return self.offset + 3 * int(np.prod(self.shape))


_Result = tuple[dict[str, _Stored], dict[str, str]]  # where clips of a shard are, why others are not


def is_packed(folder: Path) -> bool:
    """Whether `vgen data pack` made this folder, and finished."""
    return (folder / _INDEX).is_file() and _shard(folder, 0).is_file()


class PackedClips:
    """A packed data set, opened for reading.

    Args:
        root: The packed folder.

    Raises:
        UserError: No packed folder, of another format, or a shard has the wrong length.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            meta = json.loads((root / _INDEX).read_text())
        except (OSError, ValueError) as error:
            raise UserError("not a packed data set", str(root), "`vgen data pack` makes one") from error
        if meta.get("format") != _FORMAT:
            raise UserError(f"packed format {meta.get('format')}, expected {_FORMAT}", str(root), "pack it again")
        self.class_names: tuple[str, ...] = tuple(meta["class_names"])
        self.fps = float(meta["fps"])
        self.side: int | None = meta["side"]  # None: packed at native size
        self.cropped: bool = meta["cropped"]
        self.lossless: bool = meta["lossless"]  # nothing was resized
        self.variant: str = meta["variant"]
        self.resize: Resize = meta["settings"]["resize"]
        self.filter: Filter = meta["settings"]["filter"]
        records = [ClipRecord(**r) for r in meta["records"]]
        self.index = ClipIndex(root, tuple(records), tuple((p, r) for p, r in meta["bad"]))
        self._stored = {name: _stored(entry) for name, entry in meta["clips"].items()}
        self._bytes: dict[int, NDArray[np.uint8]] = {}
        for shard, expected in _lengths(self._stored.values()).items():
            path = _shard(root, shard)
            actual = path.stat().st_size if path.is_file() else 0
            if actual != expected:
                raise UserError(f"packed data has {actual} bytes instead of {expected}", str(path), "pack it again")

    def __getstate__(self) -> dict[str, Any]:
        # Every worker process maps the files itself.
        return {**self.__dict__, "_bytes": {}}

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """Returns frames (T, H, W, 3) uint8; `indices` count from the clip's first frame.

        Frames at equal distances come as a view of the mapped file (private to this process: writing into it changes
        nothing on disk), others as a copy.
        """
        planes = self._planes(self._stored[record.name])
        first, step = int(indices[0]), int(indices[1] - indices[0]) if len(indices) > 1 else 1
        if step > 0 and (np.diff(indices) == step).all():
            chosen = planes[:, first : int(indices[-1]) + 1 : step]
        else:
            chosen = planes[:, indices]
        return chosen.transpose(1, 2, 3, 0)

    def shard_of(self, record: ClipRecord) -> int:
        """Which shard a clip lies in."""
        return self._stored[record.name].shard

    def verify(self) -> list[str]:
        """Compares all clips with their checksums; returns the names of those that differ."""
        return [name for name, s in self._stored.items() if zlib.crc32(self._planes(s).data) != s.crc]

    def _planes(self, stored: _Stored) -> NDArray[np.uint8]:
        if stored.shard not in self._bytes:
            self._bytes[stored.shard] = np.memmap(_shard(self.root, stored.shard), dtype=np.uint8, mode="c")
        return self._bytes[stored.shard][stored.offset : stored.end].reshape(3, *stored.shape)


def pack(
    index: ClipIndex,
    reader: _Reader,
    out: Path,
    class_names: tuple[str, ...],
    fps: float,
    side: int | None = None,
    resize_mode: Resize = "letterbox",
    crop: Crop | None = None,
    progress: Callable[[int, int], None] | None = None,
    filter: Filter | None = None,
    processes: int = 1,
    shard_bytes: int = SHARD_BYTES,
    variant: str = "",
) -> PackedClips:
    """Decodes every clip once and writes a packed folder. An interrupted run keeps its finished shards.

    Every shard appears under its name only when it is complete, was read again and has the right checksums; those that
    an earlier run left are read again, too.

    Args:
        index: The clips.
        reader: Where their frames come from.
        out: Folder to make.
        class_names: Text of each label.
        fps: Rate at which clips are to be shown.
        side: Resize to this many pixels (without padding, which is added when reading); None keeps native size.
        resize_mode: How (see `vgen.data.transforms.resize`).
        crop: Part of the picture that is kept.
        progress: Called with (clips done, clips in all).
        filter: With which filter (see `vgen.data.transforms.resize`).
        processes: Shards that are written at the same time; the result does not depend on it.
        shard_bytes: Bytes of a shard, about; a longer clip has one by itself.
        variant: Which variant of the set this is.

    Raises:
        UserError: `out` holds another packed set, nothing could be read, or the result does not verify.
    """
    settings = {
        "format": _FORMAT,
        "fingerprint": index.fingerprint,
        "side": side,
        "resize": resize_mode,
        "filter": filter or default_filter(resize_mode),
        "crop": None if crop is None else asdict(crop),
    }
    out.mkdir(parents=True, exist_ok=True)
    if (out / _INDEX).is_file():
        known = json.loads((out / _INDEX).read_text())
        if known.get("settings") != settings:
            raise UserError("the folder holds a packed set of other data or size", str(out), "choose another folder")
        return PackedClips(out)
    plan = list(_plan(index.records, shard_bytes, side, resize_mode, crop))
    work = partial(_pack_shard, out, reader, settings, side, resize_mode, filter, crop)
    stored: dict[str, _Stored] = {}
    bad = dict(index.bad)
    for kept, lost in _work_off(work, plan, processes, progress or (lambda done, total: None)):
        stored.update(kept)
        for name, reason in lost.items():
            bad[name] = reason
            _log.warning("left out unreadable clip %s: %s", one_line(name), reason)
    records = [
        replace(r, height=stored[r.name].shape[1], width=stored[r.name].shape[2])
        for r in index.records
        if r.name in stored
    ]
    if not records:
        raise UserError("none of the clips can be read", str(index.root), "see `vgen data check`")
    native = {r.name: (r.height, r.width) for r in index.records}
    meta = {
        "format": _FORMAT,
        "settings": settings,
        "class_names": list(class_names),
        "fps": fps,
        "side": side,
        "variant": variant,
        "cropped": crop is not None,
        "lossless": side is None or (crop is None and all(s.shape[1:] == native[n] for n, s in stored.items())),
        "records": [asdict(r) for r in records],
        "bad": list(bad.items()),
        "clips": {r.name: asdict(stored[r.name]) for r in records},
    }
    write_text(out / _INDEX, json.dumps(meta, separators=(",", ":")))
    for shard in range(len(plan)):
        _log_of(out, shard).unlink(missing_ok=True)
    return PackedClips(out)


def _plan(
    records: Sequence[ClipRecord], shard_bytes: int, side: int | None, mode: Resize, crop: Crop | None
) -> Iterator[list[ClipRecord]]:
    """Divides the clips (each once, though it may be in two sets) into shards of about equal size."""
    shard: list[ClipRecord] = []
    size = 0
    pixels: dict[tuple[int, int], int] = {}
    for record in {record.name: record for record in records}.values():
        native = (record.height, record.width)
        if native not in pixels:
            frame = _prepare(np.empty((1, *native, 3), np.uint8), side, mode, "nearest", crop)
            pixels[native] = frame.shape[1] * frame.shape[2]
        needed = 3 * record.frames * pixels[native]
        if shard and size + needed > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(record)
        size += needed
    if shard:
        yield shard


def _work_off(
    work: Callable[[int, list[ClipRecord], Callable[[], None]], _Result],
    plan: list[list[ClipRecord]],
    processes: int,
    progress: Callable[[int, int], None],
) -> list[_Result]:
    """Writes all shards and returns what is known of them, in their order; tells of clips as they are done."""
    done = itertools.count(1)
    total = sum(map(len, plan))

    def tick() -> None:
        progress(next(done), total)

    if min(processes, len(plan)) <= 1:
        return [work(shard, records, tick) for shard, records in enumerate(plan)]
    # Not by forking: a process that has used OpenMP (torch) hangs in its copies.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(processes, len(plan)), context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        futures = [pool.submit(_in_worker, work, shard, records) for shard, records in enumerate(plan)]
        try:
            for future in as_completed(futures):
                future.result()
                for _ in plan[futures.index(future)]:
                    tick()
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def _in_worker(work: Callable[..., _Result], shard: int, records: list[ClipRecord]) -> _Result:
    try:
        return work(shard, records, lambda: None)
    except UserError as error:
        # Pickling takes exceptions with one argument alone.
        raise UserError(error.what, error.where, error.hint) from None


def _pack_shard(
    out: Path,
    reader: _Reader,
    settings: dict[str, Any],
    side: int | None,
    mode: Resize,
    filter: Filter | None,
    crop: Crop | None,
    shard: int,
    records: list[ClipRecord],
    tick: Callable[[], None],
) -> _Result:
    """Writes one shard, or finds that it is there; returns places of clips, and reasons for those without."""
    names = [record.name for record in records]
    if (found := _finished(out, shard, settings, names)) is not None:
        for _ in records:
            tick()
        return found
    stored: dict[str, _Stored] = {}
    bad: dict[str, str] = {}
    offset = 0
    with atomic_path(_shard(out, shard)) as temporary:
        with open(temporary, "wb") as file:
            for record in records:
                try:
                    clip = _prepare(reader.read(record, np.arange(record.frames)), side, mode, filter, crop)
                except UnreadableVideo as error:
                    bad[record.name] = error.reason
                else:
                    planes = np.ascontiguousarray(clip.transpose(3, 0, 1, 2))
                    _, t, h, w = planes.shape
                    stored[record.name] = _Stored(shard, offset, (t, h, w), zlib.crc32(planes.data))
                    file.write(planes.data)
                    offset += planes.size
                tick()
        _verify(temporary, stored, out)
    entries = {name: asdict(s) for name, s in stored.items()}
    write_text(_log_of(out, shard), json.dumps({"settings": settings, "names": names, "clips": entries, "bad": bad}))
    return stored, bad


def _prepare(clip: Pixels, side: int | None, mode: Resize, filter: Filter | None, crop: Crop | None) -> Pixels:
    clip = clip if crop is None else crop(clip)
    if side is None:
        return clip
    clip = resize(clip, (side, side), mode, filter)
    # "wide" keeps the columns from which training chooses.
    return clip if mode == "wide" else fit(clip, (side, side))


def _finished(out: Path, shard: int, settings: dict[str, Any], names: list[str]) -> _Result | None:
    """What an earlier run has made of this shard, if it is whole."""
    try:
        log = json.loads(_log_of(out, shard).read_text())
        if log["settings"] != settings or log["names"] != names:
            return None
        stored = {name: _stored(entry) for name, entry in log["clips"].items()}
        _verify(_shard(out, shard), stored, out)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    return stored, log["bad"]


def _verify(path: Path, stored: dict[str, _Stored], out: Path) -> None:
    """Reads a shard again and compares it with its checksums."""
    with open(path, "rb") as file:
        for name, place in stored.items():
            if zlib.crc32(file.read(place.end - place.offset)) != place.crc:
                raise UserError(f"packed clip {name} differs from what was written", str(out), "is the disk healthy?")
        if file.read(1):
            raise UserError("a shard is longer than what was written", str(path), "is the disk healthy?")


def _stored(entry: dict[str, Any]) -> _Stored:
    return _Stored(entry["shard"], entry["offset"], tuple(entry["shape"]), entry["crc"])


def _lengths(places: Iterable[_Stored]) -> dict[int, int]:
    lengths: dict[int, int] = {}
    for place in places:
        lengths[place.shard] = max(lengths.get(place.shard, 0), place.end)
    return lengths


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.u8"


def _log_of(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.json"
