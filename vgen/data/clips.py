"""The index of a data set: which clips there are, how long they are, and whose they are.

The index is built once and kept in `.vgen_index.json` in the data folder where that can be written; a file is looked
at again only when its size or time stamp changed. Paths are relative, so that the folder can be moved.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vgen.data.splits import Split
from vgen.errors import UserError, one_line
from vgen.files import WriteError, atomic_path, why_unreadable
from vgen.video.io import VIDEO_SUFFIXES, UnreadableVideo, VideoInfo, is_picture, probe

CACHE_NAME = ".vgen_index.json"
_CACHE_FORMAT = 1
_ONE_TOO_MANY = 1  # headers of whole AVI files often count one frame that is not there
_SHOWN = 20  # warnings of one kind
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipRecord:
    """One clip.

    Args:
        path: Video file or frame folder, relative to the data set's root, with forward slashes.
        label: Index of the class, or None.
        subject: Who or what is seen, e.g. a person's number; the group that splits keep together.
        split: Which set the clip belongs to.
        text: Caption; empty means: the class name.
        start: First frame of the clip within the file.
        frames: Frames of the clip; 0 in a record that has not been looked up yet: to the file's end.
        fps: Frames per second, 0 where the file says nothing.
        height: Height in pixels of the stored frames.
        width: Width in pixels of the stored frames.
        size: Bytes on disk of file or folder.
    """

    path: str
    label: int | None = None
    subject: str = ""
    split: Split = "train"
    text: str = ""
    start: int = 0
    frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """A name that is unique within the set, also where one file holds several clips."""
        return f"{self.path}#{self.start}" if self.start else self.path


@dataclass(frozen=True)
class ClipIndex:
    """All readable clips of a set.

    Args:
        root: The folder that record paths are relative to.
        records: The clips in a fixed order.
        bad: (path, reason) of what could not be read.
    """

    root: Path
    records: tuple[ClipRecord, ...]
    bad: tuple[tuple[str, str], ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """Changes when clips are added, removed, replaced, relabelled or moved between sets."""
        return fingerprint(self.records)

    def of(self, split: Split) -> tuple[ClipRecord, ...]:
        """The clips of one set."""
        return tuple(record for record in self.records if record.split == split)


def fingerprint(records: Sequence[ClipRecord]) -> str:
    """16 hexadecimal digits of a hash over names, lengths, sizes, labels and sets of the clips."""
    digest = hashlib.sha256()
    for r in records:
        line = f"{r.path}|{r.start}|{r.frames}|{r.size}|{r.label}|{r.subject}|{r.split}\n"
        digest.update(line.encode(errors="surrogateescape"))  # names need not be UTF-8
    return digest.hexdigest()[:16]


def is_video(path: Path) -> bool:
    """Whether a path looks like a clip: by its name and, of a folder, the names in it; nothing is opened.

    A clip is a file with a video's suffix, or a folder that holds more pictures than videos. So are an empty folder, a
    folder that has a video's name but holds none, and what cannot be looked into: to be named as unreadable, and not
    to be passed over in silence.
    """
    if path.name.startswith("."):
        return False
    try:
        if not path.is_dir():
            return path.suffix.lower() in VIDEO_SUFFIXES
        with os.scandir(path) as entries:
            inside = [(is_picture(e), e.name.lower().endswith(VIDEO_SUFFIXES)) for e in entries]
    except OSError:
        return True
    pictures, videos = (sum(kind) for kind in zip(*inside, strict=True)) if inside else (0, 0)
    named = path.suffix.lower() in VIDEO_SUFFIXES
    return pictures > videos or not inside or (named and not videos)


def build_index(
    root: Path, wanted: Sequence[ClipRecord], expected: str, look: Callable[[Path], VideoInfo] = probe
) -> ClipIndex:
    """Looks up length, size and rate of every wanted clip.

    Args:
        root: The data set's folder.
        wanted: Clips as the layout names them; `frames` 0 means the whole file.
        expected: What the folder should look like, for the error message.
        look: Finds out length, size and rate of a file.

    Raises:
        UserError: No clip can be read.
    """
    cache = _read_cache(root)
    fresh: dict[str, dict[str, Any]] = {}
    records: list[ClipRecord] = []
    doubts: list[str] = []
    bad: dict[str, str] = {}
    unreadable: set[str] = set()
    for record in wanted:
        if record.path in unreadable:
            continue
        try:
            facts = fresh.get(record.path) or _facts(root, record.path, cache, look)
        except UnreadableVideo as error:
            bad[record.path] = error.reason
            unreadable.add(record.path)
            continue
        if record.path not in fresh and facts["header_frames"] - facts["frames"] > _ONE_TOO_MANY:
            doubts.append(
                f"{record.path}: its header promises {facts['header_frames']} frames, {facts['frames']} are there"
            )
        fresh[record.path] = facts
        left = facts["frames"] - record.start
        if left <= 0 or record.start < 0 or record.frames < 0:
            bad[record.name] = f"is to begin at frame {record.start}, but the file has {facts['frames']}"
            continue
        if record.frames - left > _ONE_TOO_MANY:
            doubts.append(f"{record.name}: is to have {record.frames} frames, {left} are there")
        records.append(
            replace(
                record,
                frames=min(record.frames or left, left),
                **{key: facts[key] for key in ("fps", "height", "width", "size")},
            )
        )
    if fresh != cache:
        _write_cache(root, fresh)
    if not records:
        shown = "; ".join(f"{one_line(name)}: {reason}" for name, reason in list(bad.items())[:3])
        found = f"{len(bad)} clips, all unreadable ({shown})" if bad else "nothing that looks like it"
        raise UserError(
            f"no readable clip: found {found}", where=str(root), hint=f"expected {expected}; see `vgen data check`"
        )
    _warn("left out unreadable clip", [f"{name}: {reason}" for name, reason in bad.items()])
    _warn("a clip is shorter than it should be:", doubts)
    return ClipIndex(root, tuple(records), tuple(bad.items()))


def _warn(what: str, names: Sequence[str]) -> None:
    for name in names[:_SHOWN]:
        _log.warning("%s %s", what, one_line(name))
    if len(names) > _SHOWN:
        _log.warning("%s ... and %d more; `vgen data check` names all", what, len(names) - _SHOWN)


def _facts(
    root: Path, path: str, cache: dict[str, dict[str, Any]], look: Callable[[Path], VideoInfo]
) -> dict[str, Any]:
    size, stamp = _signature(root / path)
    known = cache.get(path)
    if known is not None and known.get("size") == size and known.get("stamp") == stamp:
        return known
    return {**asdict(look(root / path)), "size": size, "stamp": stamp}


def _signature(path: Path) -> tuple[int, int]:
    """Bytes and latest modification time (ns) of a file or of the pictures in a folder."""
    try:
        if not path.is_dir():
            status = path.stat()
            return status.st_size, status.st_mtime_ns
        with os.scandir(path) as entries:
            stats = [entry.stat() for entry in entries if is_picture(entry)]
    except (OSError, ValueError) as error:  # ValueError: a null character in a name
        raise UnreadableVideo(path, why_unreadable(path) or f"cannot be looked at ({error})") from error
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _read_cache(root: Path) -> dict[str, dict[str, Any]]:
    try:
        stored = json.loads((root / CACHE_NAME).read_text())
        return dict(stored["files"]) if stored["format"] == _CACHE_FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_cache(root: Path, files: dict[str, dict[str, Any]]) -> None:
    # A read-only or full data folder costs a scan at every start, nothing else.
    with contextlib.suppress(OSError, WriteError), atomic_path(root / CACHE_NAME) as temporary:
        temporary.write_text(json.dumps({"format": _CACHE_FORMAT, "files": files}, separators=(",", ":")))
