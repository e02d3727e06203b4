"""The data set that answers a loader's requests with clips."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from vgen.data.clips import ClipRecord
from vgen.data.sampling import (
    EXPANDING,
    ClipRequest,
    FrameSampling,
    Indices,
    ShortClips,
    clip_rng,
    clip_windows,
    frame_indices,
)
from vgen.data.transforms import (
    Augmentation,
    Crop,
    Filter,
    Pixels,
    Resize,
    augment,
    fit,
    pad,
    random_columns,
    recompress,
    resize,
    to_tensor,
)
from vgen.errors import UserError, one_line
from vgen.video.decoding import Decoder, decode_frames, use_torchcodec
from vgen.video.io import UnreadableVideo, read_frames

_log = logging.getLogger(__name__)
_ATTEMPTS = 50


class Reader(Protocol):
    """Where frames come from: files, or a packed set."""

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """Returns frames (T, H, W, 3) uint8; `indices` count from the clip's first frame."""


@dataclass(frozen=True)
class FileReader:
    """Reads video files and frame folders under a root.

    Args:
        root: Folder that record paths are relative to.
        decoder: `torchcodec` is nearly twice as fast as `pyav`, needs FFmpeg's shared libraries on the machine, and
            differs from it by up to two grey levels here and there (mean 0.0005). `auto`: torchcodec where it loads.
    """

    root: Path
    decoder: Decoder = "auto"

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """See `Reader`."""
        path, numbers = self.root / record.path, [record.start + int(i) for i in indices]
        if use_torchcodec(self.decoder):
            size = (record.height, record.width) if record.height else None
            frames = decode_frames(path, numbers, size)
            if frames is not None:
                return frames
        return read_frames(path, numbers)


@dataclass(frozen=True)
class ClipTransform:
    """Crop, augmentation, resizing and padding in the order that was published.

    Args:
        size: Height and width of the result in pixels.
        resize: See `vgen.data.transforms.resize`.
        filter: See `vgen.data.transforms.resize`.
        crop: Part of the picture that is kept.
        jpeg: Quality of JPEG files in which the set was published after resizing, or None.
        augmentation: See `vgen.data.transforms.augment`.
        before_resize: Augment the cropped original.
        before_pad: Augment the resized picture before black borders are added; default is after that.
    """

    size: tuple[int, int]
    resize: Resize
    filter: Filter | None = None
    crop: Crop | None = None
    jpeg: int | None = None
    augmentation: Augmentation = "none"
    before_resize: bool = False
    before_pad: bool = False

    def __call__(self, clip: Pixels, seed: tuple[int, int, int]) -> Pixels:
        """Turns stored frames (T, H, W, 3) into (T, height, width, 3); `seed` is (seed, epoch, position)."""
        # A stream of its own: whatever the frame choice draws, augmentation is the same.
        rng = clip_rng(seed[0] + 1, *seed[1:])
        clip = clip if self.crop is None else self.crop(clip)
        stage = 0 if self.before_resize else 1 if self.before_pad else 2
        clip = augment(clip, self.augmentation, rng) if stage == 0 else clip
        clip = resize(clip, self.size, self.resize, self.filter)
        clip = random_columns(clip, self.size[1], rng) if self.augmentation == "crop_flip" else clip
        clip = fit(clip, self.size)
        clip = clip if self.jpeg is None else recompress(clip, self.jpeg)
        clip = augment(clip, self.augmentation, rng) if stage == 1 else clip
        clip = pad(clip, self.size)
        return augment(clip, self.augmentation, rng) if stage == 2 else clip


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of one set as dicts of bytes and labels.

    Args:
        records: The clips.
        reader: Where frames come from.
        transform: What is done to them.
        class_names: Text of each label.
        fps: Rate at which clips are to be shown.
        frames: Frames T of a clip.
        sampling: How they are chosen.
        stride: Step between frames of contiguous samplings.
        short: What happens to short clips.
        seed: Decides frames and augmentation together with epoch and position.
        training: False: every epoch is like epoch 0.
        replace: Another clip stands in for an unreadable one; otherwise that is an error.
        channels: 3, or 1 for brightness alone.
    """

    def __init__(
        self,
        records: Sequence[ClipRecord],
        reader: Reader,
        transform: ClipTransform,
        class_names: Sequence[str],
        fps: float,
        frames: int,
        sampling: FrameSampling,
        stride: int = 1,
        short: ShortClips = "repeat_last",
        seed: int = 0,
        training: bool = False,
        replace: bool = False,
        channels: int = 3,
    ) -> None:
        self.reader, self.transform = reader, transform
        self.class_names, self.fps, self.frames = tuple(class_names), float(fps), frames
        self.sampling, self.stride, self.short = sampling, stride, short
        self.seed, self.training, self.replace = seed, training, replace
        self.channels = channels
        self.replaced = 0
        self._named: set[str] = set()
        self.keep(records)

    def keep(self, records: Sequence[ClipRecord]) -> None:
        """Makes these the clips of the set."""
        self.records = list(records)
        # Where one clip of the set makes several: how many clips there are up to and including each.
        self._ends = np.cumsum([clip_windows(self.sampling, r.frames, self.frames, self.stride) for r in self.records])

    def __len__(self) -> int:
        """Number of clips (an epoch may pass over them several times)."""
        return int(self._ends[-1])

    def __getitem__(self, request: ClipRequest | int) -> Any:
        """Reads one clip; a plain number stands for that position of epoch 0.

        Returns:
            A dict as described at `VideoDataModule` without the batch dimension, or the `UserError` that reading
            raised: worker processes cannot raise exceptions with several arguments, so the loader does it.
        """
        epoch, position = request if isinstance(request, tuple) else (0, request)
        if not self.training:
            epoch = 0
        unreadable: list[str] = []
        # Neighbours stand in for what cannot be read: the same ones in every run.
        for attempt in range(min(_ATTEMPTS, len(self.records))):
            record, window = self._at(position % len(self), attempt)
            try:
                return {**self._item(record, (self.seed, epoch, position), window), "_unreadable": unreadable}
            except UnreadableVideo as error:
                if not self.replace:
                    return error
                unreadable.append(f"{record.name}: {error.reason}")
        return UserError(f"{len(unreadable)} clips in a row cannot be read", unreadable[0], "see `vgen data check`")

    @cached_property
    def captioned(self) -> bool:
        """Whether clips come with texts of their own."""
        return any(record.text for record in self.records)

    def windows(self) -> Indices:
        """(number of clips of the set,) how many clips each of them makes."""
        return np.diff(self._ends, prepend=0)

    def report(self, names: list[str]) -> None:
        """Counts unreadable clips, and names each once."""
        self.replaced += len(names)
        for name in names:
            if name not in self._named:
                self._named.add(name)
                _log.warning("replaced unreadable clip %s", one_line(name))

    def _at(self, position: int, attempt: int) -> tuple[ClipRecord, int]:
        """The clip at a position (or the one `attempt` places further on) and which of its windows is meant."""
        number = int(np.searchsorted(self._ends, position, side="right"))
        window = position - (int(self._ends[number - 1]) if number else 0)
        number = (number + attempt) % len(self.records)
        windows = int(self._ends[number]) - (int(self._ends[number - 1]) if number else 0)
        return self.records[number], window % windows

    def _item(self, record: ClipRecord, seed: tuple[int, int, int], window: int = 0) -> dict[str, Any]:
        indices = frame_indices(
            self.sampling, record.frames, self.frames, clip_rng(*seed), self.stride, self.short, window
        )
        clip = self.transform(self._read(record, indices, seed), seed)
        item: dict[str, Any] = {
            "video": to_tensor(clip, self.channels),
            "frame_index": torch.from_numpy(indices),
            "fps": self.fps,
            "path": f"{record.name}@{window}" if self.sampling in EXPANDING else record.name,
            "subject": record.subject,
        }
        if record.label is not None:
            item["label"] = record.label
            item["text"] = record.text or self.class_names[record.label]
        elif self.captioned:
            item["text"] = record.text
        return item

    def _read(self, record: ClipRecord, indices: Indices, seed: tuple[int, int, int]) -> Pixels:
        black = indices < 0
        if not black.any():
            return self.reader.read(record, indices)
        seen = self.reader.read(record, indices[~black])
        clip = np.zeros((len(indices), *seen.shape[1:]), np.uint8)
        clip[~black] = seen
        return clip
