"""Anybody's own videos: folders of classes, or a table."""

import csv
import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

from vgen.data.clips import ClipRecord, is_video
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import DIGAN, LATTE, PVDM, STYLEGAN_V, TATS_FRAMES, VIDEOGPT, VIDM_FILES, Preset, TrainOn
from vgen.data.sampling import FrameSampling, ShortClips
from vgen.data.splits import Split
from vgen.data.transforms import Augmentation, Filter, Resize
from vgen.errors import UserError, did_you_mean, one_line
from vgen.video.decoding import Decoder
from vgen.video.io import UnreadableVideo, natural_key, probe

_log = logging.getLogger(__name__)


class Folder(VideoDataModule):
    """Own videos in one of three layouts.

    * `<class>/<clip>`, a clip being a video file or a folder of pictures (clips directly in the root: no classes);
    * `{train,val,test}/<class>/<clip>`;
    * a table `metadata.csv` with columns `path` and `label` or `caption` (or both) and, if wanted, `subject,split`.

    Captions stand in the table, or each in a text file beside its clip: `<clip>.txt` for `<clip>.mp4` or for the folder
    `<clip>`. Clips need no class where there are captions.

    Where nothing says which set a clip belongs to, whole groups are dealt out at random (but always the same way).
    Arguments: `VideoDataModule`, and:

    Args:
        metadata: Table of clips, relative to `root`; None: `metadata.csv` where there is one.
        group_key: Regular expression searched for in a clip's path; what its first bracket matches names the subject
            (group) whose clips must stay in one set, e.g. "_(g[0-9]+)_" for UCF-101. None: every clip by itself.
        test_fraction: Share of the groups that becomes the test set where nothing else says so.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "digan": DIGAN,
        "latte": LATTE,
        "pvdm": PVDM,
        "stylegan_v": STYLEGAN_V,
        "tats": VIDEOGPT,
        "tats_frames": TATS_FRAMES,
        "videogpt": VIDEOGPT,
        "vidm": VIDM_FILES,
    }
    expected: ClassVar[str] = (
        "<class>/<clip.mp4 or folder of pictures>, {train,val,test}/<class>/<clip>, or metadata.csv with path and "
        "label or caption"
    )

    def __init__(
        self,
        root: str,
        size: int | tuple[int, int],
        frames: int,
        sampling: FrameSampling | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        repeats: int = 1,
        fps: float | None = None,
        augmentation: Augmentation | None = None,
        augment_at: Literal["published", "resized"] = "published",
        resize: Resize | None = None,
        stride: int | None = None,
        short_clips: ShortClips | None = None,
        eval_frames: int | None = None,
        eval_sampling: FrameSampling | None = None,
        eval_batch_size: int | None = None,
        val_clips: int | None = None,
        seed: int = 0,
        packed: str | None = None,
        pin_memory: bool = False,
        preset: str | None = None,
        variant: str | None = None,
        train_on: TrainOn | None = None,
        filter: Filter | None = None,
        channels: Literal[1, 3] = 3,
        decoder: Decoder = "auto",
        read_order: Literal["random", "shards"] = "random",
        metadata: str | None = None,
        group_key: str | None = None,
        test_fraction: float = 0.2,
    ) -> None:
        super().__init__(
            root, size, frames, sampling, batch_size, num_workers, repeats, fps, augmentation, augment_at, resize,
            stride, short_clips, eval_frames, eval_sampling, eval_batch_size, val_clips, seed, packed, pin_memory,
            preset, variant, train_on, filter, channels, decoder, read_order,
        )  # fmt: skip
        self.metadata, self.test_fraction = metadata, test_fraction
        try:
            self.group_key = re.compile(group_key) if group_key else None
        except re.error as error:
            raise UserError(f"group_key is no regular expression: {error}", "data.init_args.group_key") from error

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes found, in alphabetical order."""
        return self._found[1]

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        return self._found[0]

    @property
    def captioned(self) -> bool:
        """See `VideoDataModule`."""
        return any(record.text for record in self.find_clips())

    def _show_fps(self) -> float:
        if self._fps is None and self._pack is None:
            for record in self.find_clips()[:20]:
                try:
                    return probe(self.root / record.path).fps or self.own_fps
                except UnreadableVideo:
                    continue
        return super()._show_fps()

    @cached_property
    def _found(self) -> tuple[list[ClipRecord], tuple[str, ...]]:
        table = self.root / (self.metadata or "metadata.csv")
        if self.metadata or table.is_file():
            rows = _read_table(table)
        else:
            rows = self._scan()
        if not rows:
            raise self._no_data()
        names = tuple(sorted({row["label"] for row in rows if row.get("label")}, key=natural_key))
        records = []
        for row in rows:
            subject = row.get("subject") or self._group(row["path"])
            label = names.index(row["label"]) if row.get("label") else None
            split = cast(Split, row.get("split") or "train")
            records.append(ClipRecord(row["path"], label, subject, split, row.get("caption") or ""))
        if not any(row.get("split") for row in rows):
            records = _deal(records, self.test_fraction)
        return records, names

    def _group(self, path: str) -> str:
        match = self.group_key.search(path) if self.group_key else None
        return "" if match is None else match[1] if match.groups() else match[0]

    def _scan(self) -> list[dict[str, str]]:
        splits = [s for s in get_args(Split) if (self.root / s).is_dir() and not is_video(self.root / s)]
        rows = []
        for split in splits or [""]:
            top = self.root / split
            children = sorted(
                (c for c in top.iterdir() if not c.name.startswith(".")), key=lambda c: natural_key(c.name)
            )
            clips = [(c, "") for c in children if is_video(c)]
            for folder in (c for c in children if c.is_dir() and not is_video(c)):
                inside = sorted(folder.iterdir(), key=lambda c: natural_key(c.name))
                clips += [(c, folder.name) for c in inside if is_video(c)]
            if any(label for _, label in clips):
                for clip in (c for c, label in clips if not label):
                    _log.warning("left out, because it is in no class folder: %s", one_line(clip))
                clips = [(c, label) for c, label in clips if label]
            for clip, label in clips:
                path = clip.relative_to(self.root).as_posix()
                rows.append({"path": path, "label": label, "split": split, "caption": _sidecar(clip)})
        return rows


def _sidecar(clip: Path) -> str:
    """The caption in the text file beside a clip; empty where there is none."""
    beside = clip.with_name(f"{clip.name}.txt") if clip.is_dir() else clip.with_suffix(".txt")
    return " ".join(beside.read_text(encoding="utf-8", errors="replace").split()) if beside.is_file() else ""


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except FileNotFoundError as error:
        raise UserError("no such table of clips", where=str(path)) from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"the table of clips cannot be read: {error}", str(path), "it must be CSV in UTF-8") from error
    known = ("path", "label", "subject", "caption", "split")
    for needed in (("path",), ("label", "caption")):
        if not set(needed) & set(columns):
            raise UserError(f"the table has no column {' or '.join(map(repr, needed))}, only {columns}", str(path))
    for column in columns:
        if column not in known and (hint := did_you_mean(column, known)) and column.lower().strip() in known:
            raise UserError(f"unknown column {column!r}", where=str(path), hint=hint)
    for number, row in enumerate(rows, start=2):
        split = row.get("split")
        if split and split not in get_args(Split):
            raise UserError(f"unknown set {split!r} (train, val or test)", where=f"{path}, line {number}")
        if not row["path"]:
            raise UserError("empty path", where=f"{path}, line {number}")
    return [{key: (value or "").strip() for key, value in row.items() if key in known} for row in rows]


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode(errors="surrogateescape")).hexdigest()  # names need not be UTF-8


def _deal(records: list[ClipRecord], fraction: float) -> list[ClipRecord]:
    """Gives whole groups (or, without groups, single clips of every class) to the test set, by hash of their name."""
    strata: dict[int | None, set[str]] = {}
    for r in records:
        # Persons are dealt out over all classes; single clips class by class, so that every class is in both sets.
        strata.setdefault(None if r.subject else r.label, set()).add(r.subject or r.path)
    test: set[str] = set()
    for groups in strata.values():
        ranked = sorted(groups, key=_hash)
        test.update(ranked[: min(max(1, round(fraction * len(ranked))), len(ranked) - 1)])
    return [replace(r, split="test") if (r.subject or r.path) in test else r for r in records]
