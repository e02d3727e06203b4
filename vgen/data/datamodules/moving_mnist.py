"""Moving MNIST: SVG's generation rule for training, the official test file or the rule for testing."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from vgen.data.clips import ClipIndex, ClipRecord, build_index
from vgen.data.datamodules.moving_digits import DigitReader, Labels, MovingDigits
from vgen.data.dataset import Reader
from vgen.data.digits import Digits, find_idx, read_idx
from vgen.data.presets import SVG, Preset, TrainOn
from vgen.data.sampling import FrameSampling, Indices, ShortClips
from vgen.data.splits import Split
from vgen.data.transforms import Augmentation, Filter, Pixels, Resize
from vgen.errors import UserError
from vgen.video.decoding import Decoder
from vgen.video.io import Examination, UnreadableVideo, VideoInfo

_OFFICIAL = "mnist_test_seq.npy"
_LENGTH = 20  # frames of an official sequence


class OfficialReader:
    """The official test file, and drawn clips beside it.

    Args:
        file: `mnist_test_seq.npy`: (20, N, 64, 64) uint8, time first.
        drawn: Reads the clips that are not from the file.
    """

    def __init__(self, file: Path, drawn: DigitReader) -> None:
        self.file, self.drawn = file, drawn
        self._sequences: Pixels | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_sequences": None}  # every worker process maps the file itself

    def read(self, record: ClipRecord, indices: Indices, seed: tuple[int, ...] = ()) -> Pixels:
        """See `Reader`."""
        if record.path != self.file.name:
            return self.drawn.read(record, indices, seed)
        if self._sequences is None:
            self._sequences = open_official(self.file)
        clip = np.array(self._sequences[indices, record.start // _LENGTH])
        return np.repeat(clip[..., None], 3, axis=3)


def open_official(file: Path) -> Pixels:
    """Maps the official file.

    Raises:
        UnreadableVideo: It is no such file, or cut off.
    """
    try:
        sequences: Pixels = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableVideo(file, f"not a whole .npy file ({error})", "download it again") from error
    if sequences.dtype != np.uint8 or sequences.ndim != 4 or sequences.shape[0] != _LENGTH:
        shape = "x".join(map(str, sequences.shape))
        raise UnreadableVideo(file, f"expected {_LENGTH} x N x 64 x 64 bytes, time first; found {shape}")
    return sequences


class MovingMNIST(MovingDigits):
    """Moving MNIST, with two digits on 64x64.

    Training clips are drawn from MNIST's training pictures by SVG's rule, anew in every epoch. Variants say what the
    walls do and what is tested on: `stochastic` and `deterministic` draw test clips (always the same ones) from MNIST's
    test pictures; `official` trains as `deterministic` and tests on the 10,000 sequences of `mnist_test_seq.npy`, which
    has no training part (with `train_on: all`, training sees these sequences and nothing else).
    Arguments: `VideoDataModule`, and:

    Args:
        digits: Digits in a clip; with one, clips have labels (which digit it is).
        train_clips: Training clips that count as one epoch (60,000 in SVG).
        test_clips: Number of drawn test clips.
        fresh: False draws the same training clips in every epoch.
    """

    own_fps: ClassVar[float] = 10.0
    variants: ClassVar[tuple[str, ...]] = ("stochastic", "deterministic", "official")
    presets: ClassVar[Mapping[str, Preset]] = {
        "svg": replace(SVG, variant="stochastic"),
        "tgan": Preset("TGAN (Saito et al. 2017)", sampling="window", variant="official", train_on="all"),
    }
    expected: ClassVar[str] = (
        "{train,t10k}-{images-idx3,labels-idx1}-ubyte(.gz) of MNIST, and for `official` mnist_test_seq.npy"
    )
    how_to_get: ClassVar[str | None] = (
        "free downloads: http://yann.lecun.com/exdb/mnist/ and https://www.cs.toronto.edu/~nitish/unsupervised_video/"
    )

    def __init__(
        self,
        root: str,
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
        digits: int = 2,
        labels: Labels = "digit",
        train_clips: int = 60_000,
        test_clips: int = 10_000,
        fresh: bool = True,
    ) -> None:
        super().__init__(
            size, frames, sampling, batch_size, num_workers, repeats, fps, augmentation, augment_at, resize,
            stride, short_clips, eval_frames, eval_sampling, eval_batch_size, val_clips, seed, packed, pin_memory,
            preset, variant, train_on, filter, channels, decoder, read_order, root, digits,
            labels, train_clips, test_clips, fresh,
        )  # fmt: skip

    def pictures(self, split: Split) -> Digits:
        """MNIST's own division."""
        folder = self._folder()
        return read_idx(folder, "t10k" if split == "test" else "train")

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        if self.variant != "official":
            return super().find_clips()
        file = self.root / _OFFICIAL
        if not file.is_file():
            raise self._no_data(_OFFICIAL)
        count = open_official(file).shape[1]
        tests = [ClipRecord(_OFFICIAL, split="test", start=n * _LENGTH, frames=_LENGTH) for n in range(count)]
        drawn = [] if self.train_on == "all" else [r for r in super().find_clips() if r.split == "train"]
        return [*drawn, *tests]

    def look(self, path: Path) -> VideoInfo:
        """See `VideoDataModule`."""
        sequences = open_official(path)
        length, count, height, width = sequences.shape
        return VideoInfo(length * count, height, width, self.own_fps)

    def examine(self, path: Path) -> Examination:
        """See `VideoDataModule`; the file is mapped, so all of it is there."""
        return Examination(self.look(path).frames)

    def look_up(self) -> ClipIndex:
        """See `VideoDataModule`."""
        clips = self.find_clips()
        files = [r for r in clips if r.path == _OFFICIAL]
        drawn = tuple(r for r in clips if r.path != _OFFICIAL)
        if not files:
            return ClipIndex(self.root, drawn)
        index = build_index(self.root, files, self.expected, self.look)
        return ClipIndex(self.root, (*drawn, *index.records), index.bad)

    def files(self) -> list[str]:
        """See `VideoDataModule`."""
        return [_OFFICIAL] if self.variant == "official" else []

    def reader(self) -> Reader:
        """See `VideoDataModule`."""
        return OfficialReader(self.root / _OFFICIAL, self._reader) if self.variant == "official" else self._reader

    @cached_property
    def _place(self) -> Path | None:
        # torchvision unpacks into MNIST/raw, Debian's package into a folder of its own.
        for folder in (self.root, self.root / "MNIST" / "raw", self.root / "raw"):
            if find_idx(folder, "train-images-idx3-ubyte") is not None:
                return folder
        return None

    def _folder(self) -> Path:
        if self._place is None:
            raise self._no_data()
        return self._place

    def _require_folder(self) -> None:
        if self.packed is not None:
            super()._require_folder()
        elif not self.root.is_dir():
            raise UserError(f"no data: MovingMNIST expects {self.expected}", str(self.root), self.how_to_get)
        else:
            self._folder()
