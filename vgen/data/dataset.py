"""The data set that answers a loader's requests with clips."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from vgen.data.clips import ClipRecord
from vgen.data.sampling import ClipRequest, FrameSampling, Indices, ShortClips, clip_rng, frame_indices
from vgen.data.transforms import Augmentation, Crop, Pixels, Resize, augment, pad, resize, to_tensor
from vgen.errors import UserError, one_line
from vgen.video.io import UnreadableVideo, read_frames

_log = logging.getLogger(__name__)
_ATTEMPTS = 50


class Reader(Protocol):
    """Where frames come from: files, or a packed set."""

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """Returns frames (T, H, W, 3) uint8; `indices` count from the clip's first frame."""


@dataclass(frozen=True)
class FileReader:
    """Reads video files and frame folders under a root."""

    root: Path

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """See `Reader`."""
        return read_frames(self.root / record.path, [record.start + int(i) for i in indices])


@dataclass(frozen=True)
class ClipTransform:
    """Crop, augmentation, resizing and padding in the order that was published.

    Args:
        size: Side of the square result in pixels.
        resize: See `vgen.data.transforms.resize`.
        crop: Part of the picture that is kept.
        augmentation: See `vgen.data.transforms.augment`.
        before_resize: Augment the cropped original.
        before_pad: Augment the resized picture before black borders are added; default is after that.
    """

    size: int
    resize: Resize
    crop: Crop | None = None
    augmentation: Augmentation = "none"
    before_resize: bool = False
    before_pad: bool = False

    def __call__(self, clip: Pixels, seed: tuple[int, int, int]) -> Pixels:
        """Turns stored frames (T, H, W, 3) into (T, size, size, 3); `seed` is (seed, epoch, position)."""
        # A stream of its own: whatever the frame choice draws, augmentation is the same.
        rng = clip_rng(seed[0] + 1, *seed[1:])
        clip = clip if self.crop is None else self.crop(clip)
        stage = 0 if self.before_resize else 1 if self.before_pad else 2
        clip = augment(clip, self.augmentation, rng) if stage == 0 else clip
        clip = resize(clip, self.size, self.resize)
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
    ) -> None:
        self.records, self.reader, self.transform = list(records), reader, transform
        self.class_names, self.fps, self.frames = tuple(class_names), float(fps), frames
        self.sampling, self.stride, self.short = sampling, stride, short
        self.seed, self.training, self.replace = seed, training, replace
        self.replaced = 0
        self._named: set[str] = set()

    def __len__(self) -> int:
        """Number of clips (an epoch may pass over them several times)."""
        return len(self.records)

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
            record = self.records[(position + attempt) % len(self.records)]
            try:
                return {**self._item(record, (self.seed, epoch, position)), "_unreadable": unreadable}
            except UnreadableVideo as error:
                if not self.replace:
                    return error
                unreadable.append(f"{record.name}: {error.reason}")
        return UserError(f"{len(unreadable)} clips in a row cannot be read", unreadable[0], "see `vgen data check`")

    def report(self, names: list[str]) -> None:
        """Counts unreadable clips, and names each once."""
        self.replaced += len(names)
        for name in names:
            if name not in self._named:
                self._named.add(name)
                _log.warning("replaced unreadable clip %s", one_line(name))

    def _item(self, record: ClipRecord, seed: tuple[int, int, int]) -> dict[str, Any]:
        indices = frame_indices(self.sampling, record.frames, self.frames, clip_rng(*seed), self.stride, self.short)
        item: dict[str, Any] = {
            "video": to_tensor(self.transform(self.reader.read(record, indices), seed)),
            "frame_index": torch.from_numpy(indices),
            "fps": self.fps,
            "path": record.name,
            "subject": record.subject,
        }
        if record.label is not None:
            item["label"] = record.label
            item["text"] = record.text or self.class_names[record.label]
        elif record.text:
            item["text"] = record.text
        return item
