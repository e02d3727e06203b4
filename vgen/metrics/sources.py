"""Where the clips of an evaluation come from.

Metrics know neither data sets nor models: the caller hands over a list of videos and a way to read them. `RecordClips`
takes those of a data module, `FolderClips` reads a folder, `TensorClips` holds clips in memory.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgen.errors import UserError
from vgen.metrics.detectors.base import tensor_hash
from vgen.video.io import IMAGE_SUFFIXES, VIDEO_SUFFIXES, natural_key, probe, read_frames


@runtime_checkable
class ClipSource(Protocol):
    """Videos that can be read by number.

    Attributes:
        ids: Name of each video, unique.
        lengths: Frames of each video.
        labels: Class of each video; None where there are none.
        subjects: Subject of each video; None where there are none.
        texts: Prompt of each video; None where there are none.
        fingerprint: Changes with the content.
        data: Name of the data set; empty where unknown.
        split: Part of the data set; empty where unknown.
        settings: What was done to the frames: `resize` (the filter), compression, frames per second `fps`, sampler of
            a model.
    """

    @property
    def ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def lengths(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[int] | None: ...  # noqa: D102
    @property
    def subjects(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def texts(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def data(self) -> str: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """Reads frames of a video: (C, T, H, W), uint8 or float in [-1, 1]. Called from several threads."""


@dataclass(frozen=True)
class TensorClips:
    """Clips in memory.

    Args:
        videos: (N, C, T, H, W), or a list of (C, T, H, W) of any lengths, uint8 or float in [-1, 1].
        labels: See `ClipSource`.
        subjects: See `ClipSource`.
        texts: See `ClipSource`.
        names: Name of each video; None numbers them.
        data: See `ClipSource`.
        split: See `ClipSource`.
        settings: See `ClipSource`.
    """

    videos: Tensor | Sequence[Tensor]
    labels: Sequence[int] | None = None
    subjects: Sequence[str] | None = None
    texts: Sequence[str] | None = None
    names: Sequence[str] | None = None
    data: str = ""
    split: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def ids(self) -> Sequence[str]:
        """Names, or numbers of equal width."""
        return self.names or [f"{number:08d}" for number in range(len(self))]

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of each video."""
        return [int(video.shape[1]) for video in self.videos]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, bytes and labels."""
        digest = hashlib.sha256(repr([list(self.ids), self.labels, self.subjects]).encode())
        for video in self.videos:
            digest.update(tensor_hash(video).encode())
        return digest.hexdigest()[:16]

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """See `ClipSource`."""
        return self.videos[number][:, list(frames)]


class Record(Protocol):
    """What `RecordClips` reads of a data module's records."""

    @property
    def name(self) -> str:
        """A name that is unique within the set."""

    @property
    def frames(self) -> int:
        """Frames of the clip."""

    @property
    def label(self) -> int | None:
        """Class, or None."""

    @property
    def subject(self) -> str:
        """Subject; empty where unknown."""

    @property
    def text(self) -> str:
        """Caption; empty where unknown."""


@dataclass(frozen=True)
class RecordClips:
    """The clips of a data module.

    Args:
        records: Those of its data set of one split (`ClipDataset.records`).
        read: Maps a record and the numbers of frames within the clip to (T, H, W, 3) bytes; with a `ClipDataset` that
            is its reader followed by its transform.
        fingerprint: Of the records; see `vgen.data.clips.fingerprint`.
        data: See `ClipSource`.
        split: See `ClipSource`.
        settings: See `ClipSource`.
    """

    records: Sequence[Record]
    read: Callable[[Any, NDArray[np.int64]], NDArray[np.uint8]]
    fingerprint: str
    data: str = ""
    split: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, clips: Any) -> "RecordClips":
        """From what a data module's `whole_clips` returns (`vgen.data.whole_clips.WholeClips`)."""
        return cls(clips.records, clips.read, clips.fingerprint, clips.data, clips.split, clips.settings)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def ids(self) -> Sequence[str]:
        """See `ClipSource`."""
        return [record.name for record in self.records]

    @property
    def lengths(self) -> Sequence[int]:
        """See `ClipSource`."""
        return [record.frames for record in self.records]

    @property
    def labels(self) -> Sequence[int] | None:
        """See `ClipSource`."""
        labels = [record.label for record in self.records]
        return [label for label in labels if label is not None] if None not in labels else None

    @property
    def subjects(self) -> Sequence[str] | None:
        """See `ClipSource`."""
        subjects = [record.subject for record in self.records]
        return subjects if all(subjects) else None

    @property
    def texts(self) -> Sequence[str] | None:
        """See `ClipSource`."""
        texts = [record.text for record in self.records]
        return texts if all(texts) else None

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """See `ClipSource`."""
        read = self.read(self.records[number], np.asarray(frames, dtype=np.int64))
        return torch.from_numpy(np.ascontiguousarray(read.transpose(3, 0, 1, 2)))


class FolderClips:
    """All videos below a folder: files, and folders of pictures. Frames stay as they are stored.

    Args:
        root: The folder.
        labels: `folder` takes the name of the folder that a video lies in as its class.
        class_names: Name of each class; None: the folders' names in their order.
        data: See `ClipSource`.
        split: See `ClipSource`.
        settings: See `ClipSource`.

    Raises:
        UserError: No folder, no video in it, or one video only; a folder that is none of the classes.
    """

    texts = None
    subjects = None

    def __init__(
        self,
        root: str | Path,
        labels: Literal["none", "folder"] = "none",
        data: str = "",
        split: str = "",
        settings: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.root, self.data, self.split, self.settings = Path(root).expanduser(), data, split, settings or {}
        if not self.root.is_dir():
            raise UserError("no such folder of videos", where=str(self.root))
        # Natural order: frame_2 comes before frame_10, and video_2 before video_10.
        found = sorted(_videos(self.root), key=lambda path: natural_key(path.as_posix()))
        if not found:
            raise _nothing(self.root)
        self.ids = [path.as_posix() for path in found]
        self._files = [self.root / path for path in found]
        self._infos = [probe(path) for path in self._files]
        self.lengths = [info.frames for info in self._infos]
        self.labels: list[int] | None = None
        self.class_names: tuple[str, ...] = ()
        if labels == "folder":
            folders = [path.parent.name for path in found]
            self.class_names = tuple(class_names or sorted(set(folders)))
            if unknown := sorted(set(folders) - set(self.class_names)):
                shown = ", ".join(self.class_names[:8])
                raise UserError(f"{unknown[0]!r} is none of the classes {shown}", where=str(self.root))
            self.labels = [self.class_names.index(folder) for folder in folders]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, lengths, sizes and modification times of the files."""
        digest = hashlib.sha256()
        for name, path, info in zip(self.ids, self._files, self._infos, strict=True):
            digest.update(f"{name}|{info.frames}|{info.height}|{info.width}|{_stamps(path)}\n".encode())
        return digest.hexdigest()[:16]

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """See `ClipSource`."""
        read = read_frames(self._files[number], list(frames))
        return torch.from_numpy(np.ascontiguousarray(read.transpose(3, 0, 1, 2)))


def _videos(root: Path, below: Path = Path()) -> list[Path]:
    """Relative paths of videos; a folder with pictures is one, and is not searched further."""
    with os.scandir(root / below) as entries:
        inside = [entry for entry in entries if not entry.name.startswith(".")]
    if any(entry.is_file() and entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in inside):
        return [below] if below.parts else []
    found = []
    for entry in inside:
        if entry.is_dir():
            found += _videos(root, below / entry.name)
        elif entry.name.lower().endswith(VIDEO_SUFFIXES):
            found.append(below / entry.name)
    return found


def _nothing(root: Path) -> UserError:
    """Why a folder without videos has none."""
    names = [entry.name for entry in os.scandir(root) if not entry.name.startswith(".")]
    if not names:
        return UserError("the folder is empty", where=str(root))
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        what = "pictures lie directly in it: as one video, that is too few to compare"
        return UserError(what, where=str(root), hint="a folder of pictures for each video, side by side")
    kinds = ", ".join((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))
    return UserError("no video in it", where=str(root), hint=f"looked for folders and files of {kinds}")


def _stamps(path: Path) -> list[tuple[int, int]]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)]
