"""Digits that bounce around: drawn while reading, with exact ground truth; nothing to download."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from vgen.data.clips import ClipIndex, ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.dataset import ClipDataset, Reader
from vgen.data.digits import Digits, Scene, Walls, bounce, directions, draw, enlarge, scikit_learn_digits
from vgen.data.presets import SVG, Preset, TrainOn
from vgen.data.sampling import FrameSampling, Indices, ShortClips, needed_frames
from vgen.data.splits import Split
from vgen.data.transforms import Augmentation, Filter, Pixels, Resize
from vgen.errors import UserError
from vgen.video.decoding import Decoder

Labels = Literal["digit", "motion", "both"]
Seed = tuple[int, ...]
_SETS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class DigitReader:
    """Draws clips. A clip is known by its set and number (its record's `start`).

    Args:
        name: Stands for everything that the pictures depend on, in paths of records.
        digits: Pictures of each set.
        canvas: Side in pixels.
        count: Digits in a clip.
        walls: See `vgen.data.digits.bounce`.
        labels: What the class of a clip with one digit is.
        fresh: Training clips differ from epoch to epoch, and any picture may come up in them. Otherwise clip n shows
            picture n, so that all come up equally often.
        still: Whether digits may stand still.
    """

    name: str
    digits: Mapping[Split, Digits]
    canvas: int
    count: int
    walls: Walls
    labels: Labels
    fresh: bool
    still: bool

    @cached_property
    def pictures(self) -> dict[Split, Pixels]:
        """The pictures in the size in which they are shown."""
        return {split: enlarge(d.images, self.canvas // 2) for split, d in self.digits.items()}

    @cached_property
    def checksums(self) -> dict[Split, int]:
        """Of the pictures of each set."""
        return {split: zlib.crc32(d.images.tobytes()) for split, d in self.digits.items()}

    def scene(self, split: Split, number: int, frames: int, seed: Seed = ()) -> Scene:
        """What a clip shows; `seed` makes another clip of it."""
        images = len(self.digits[split].labels)
        first = None if self.fresh and split == "train" else number % images
        seed = (_SETS.index(split), number, *seed)
        return bounce(frames, self.canvas, self.count, images, self.walls, seed, first, self.still)

    def describe(self, split: Split, number: int, frames: int, seed: Seed = ()) -> ClipRecord:
        """The record of a clip: label, caption, and which picture it shows first."""
        scene = self.scene(split, number, 1, seed)
        shown = [int(self.digits[split].labels[source]) for source in scene.sources]
        moving = [scene.direction(i) for i in range(self.count)]
        ways = directions(self.still)
        direction = ways.index(moving[0])
        label = {"digit": shown[0], "motion": direction, "both": shown[0] * len(ways) + direction}[self.labels]
        return replace(
            self.blank(split, number, frames),
            label=label if self.count == 1 else None,
            subject=str(scene.sources[0]),
            text=" and ".join(f"{digit} moving {way}" for digit, way in zip(shown, moving, strict=True)),
        )

    def blank(self, split: Split, number: int, frames: int) -> ClipRecord:
        """The record of a clip, without saying what it shows."""
        return ClipRecord(
            f"{self.name}/{split}",
            split=split,
            start=number,
            frames=frames,
            height=self.canvas,
            width=self.canvas,
            size=self.checksums[split],
        )

    def read(self, record: ClipRecord, indices: Indices, seed: Seed = ()) -> Pixels:
        """See `Reader`."""
        scene = self.scene(record.split, record.start, int(indices.max()) + 1, seed)
        return draw(scene, self.pictures[record.split], self.canvas, indices)


class DigitClips(ClipDataset):
    """Training clips that may be drawn anew in every epoch, as a function of (seed, epoch, position)."""

    def _item(self, record: ClipRecord, seed: tuple[int, int, int], window: int = 0) -> dict[str, Any]:
        if self._fresh is not None:
            record = self._fresh.describe(record.split, record.start, record.frames, seed)
        return super()._item(record, seed, window)

    def _read(self, record: ClipRecord, indices: Indices, seed: tuple[int, int, int]) -> Pixels:
        if self._fresh is not None:
            return self._fresh.read(record, indices, seed)
        return super()._read(record, indices, seed)

    @cached_property
    def captioned(self) -> bool:
        """See `ClipDataset`."""
        return True

    @property
    def _fresh(self) -> DigitReader | None:
        reader = getattr(self.reader, "drawn", self.reader)
        return reader if self.training and isinstance(reader, DigitReader) and reader.fresh else None


class MovingDigits(VideoDataModule):
    """Handwritten digits of scikit-learn that bounce around under SVG's rules; needs `pip install 'vgen[digits]'`.

    Training and test clips show different handwriting: 1,347 and 450 of the 1,797 pictures. Every clip is a function of
    its number, so the set is always the same; `scene` tells where each digit is. Arguments: `VideoDataModule`, and:

    Args:
        variant: `deterministic` (digits are reflected by the walls) or `stochastic` (walls send them anywhere).
        digits: Digits in a clip; with more than one, clips have captions but no labels.
        labels: What the class of a clip is: which digit it shows, where it sets out to (one of nine directions, which
            the first frame does not show), or both.
        train_clips: Number of training clips.
        test_clips: Number of test clips.
        fresh: True draws new training clips in every epoch. The set then never ends, and cannot be packed or cached.
        still: Whether digits may stand still, as the published rule has it.
    """

    own_fps: ClassVar[float] = 10.0
    variants: ClassVar[tuple[str, ...]] = ("deterministic", "stochastic")
    presets: ClassVar[Mapping[str, Preset]] = {"svg": SVG}
    expected: ClassVar[str] = "the digits that scikit-learn ships"
    dataset_class: ClassVar[type[ClipDataset]] = DigitClips

    def __init__(
        self,
        size: int,
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
        root: str = ".",
        digits: int = 1,
        labels: Labels = "digit",
        train_clips: int = 4000,
        test_clips: int = 1000,
        fresh: bool = False,
        still: bool = True,
    ) -> None:
        super().__init__(
            root, size, frames, sampling, batch_size, num_workers, repeats, fps, augmentation, augment_at, resize,
            stride, short_clips, eval_frames, eval_sampling, eval_batch_size, val_clips, seed, packed, pin_memory,
            preset, variant, train_on, filter, channels, decoder, read_order,
        )  # fmt: skip
        self.digits, self.labels, self.fresh, self.still = digits, labels, fresh, still
        self.clips: dict[Split, int] = {"train": train_clips, "test": test_clips}
        if self.height != self.width or self.height % 2:
            raise UserError(f"the canvas is square, of even size: not {size}", "data.init_args.size")
        for name, value in (("digits", digits), ("train_clips", train_clips), ("test_clips", test_clips)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}", f"data.init_args.{name}")

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Digits, directions, or both."""
        if self.digits > 1:
            return ()
        numbers, ways = tuple(str(digit) for digit in range(10)), directions(self.still)
        if self.labels == "both":
            return tuple(f"{number} moving {direction}" for number in numbers for direction in ways)
        return numbers if self.labels == "digit" else ways

    @property
    def captioned(self) -> bool:
        """See `VideoDataModule`."""
        return True

    @property
    def repeatable(self) -> bool:
        """See `VideoDataModule`."""
        return super().repeatable and not self.fresh

    def pictures(self, split: Split) -> Digits:
        """Every fourth picture is for testing."""
        every = scikit_learn_digits()
        test = np.arange(len(every.labels)) % 4 == 0
        chosen = test if split == "test" else ~test
        return Digits(every.images[chosen], every.labels[chosen])

    def scene(self, record: ClipRecord) -> Scene:
        """Which digits a clip shows, and where they are in each of its frames."""
        return self._reader.scene(record.split, record.start, record.frames)

    def reader(self) -> Reader:
        """See `VideoDataModule`."""
        return self._reader

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        wanted = ((self.sampling, self.frames), (self.eval_sampling, self.eval_frames))
        length = max(needed_frames(sampling, frames, self.stride) for sampling, frames in wanted)
        clips = []
        for split in _SETS:
            if self.fresh and split == "train":
                # What they show is another thing in every epoch.
                clips += [self._reader.blank(split, n, length) for n in range(self.clips[split])]
            else:
                clips += [self._reader.describe(split, n, length) for n in range(self.clips[split])]
        return clips

    def files(self) -> list[str]:
        """See `VideoDataModule`: there are none."""
        return []

    def look_up(self) -> ClipIndex:
        """See `VideoDataModule`."""
        return ClipIndex(self.root, tuple(self.find_clips()))

    @cached_property
    def _reader(self) -> DigitReader:
        name = f"{type(self).__name__.lower()}_{self.variant}_{self.digits}_{self.height}"
        return DigitReader(
            name=name if self.still else f"{name}_moving",
            digits={split: self.pictures(split) for split in _SETS},
            canvas=self.height,
            count=self.digits,
            walls="stochastic" if self.variant == "stochastic" else "deterministic",
            labels=self.labels,
            fresh=self.fresh,
            still=self.still,
        )

    def _require_folder(self) -> None:
        if self.packed is not None:
            super()._require_folder()
