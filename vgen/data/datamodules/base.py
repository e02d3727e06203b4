"""The base of all DataModules: index, frame choice, geometry, augmentation and loaders from plain arguments."""

import copy
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from vgen.data.clips import ClipIndex, ClipRecord, build_index
from vgen.data.dataset import ClipDataset, ClipTransform, FileReader, Reader
from vgen.data.packing import PackedClips, is_packed
from vgen.data.sampling import (
    ClipRequest,
    FrameSampling,
    ResumableDataLoader,
    ResumableSampler,
    ShortClips,
    collate,
)
from vgen.data.splits import Split
from vgen.data.transforms import Augmentation, Crop, Resize
from vgen.errors import UserError
from vgen.video.spec import ClipSpec


class Batches:
    """The batches of a loader, and nothing else of it.

    Lightning rebuilds every DataLoader that it is to predict with or to overfit, with a sampler of its own.

    Args:
        loader: The loader.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class VideoDataModule(LightningDataModule):
    """Clips of one data set as batches of bytes.

    Subclasses say which clips there are (`find_clips`) and what is published about them (class attributes).

    A batch is a dict: `video` (B, 3, T, size, size) uint8, `frame_index` (B, T) int64 (frame numbers within the clip),
    `fps` (B,) float32, `path` and `subject` (lists of strings) and, where the set has classes, `label` (B,) int64 and
    `text` (list of class names or captions).

    Args:
        root: Folder of the data set, or a folder that `vgen data pack` made of it.
        size: Side of the square frames in pixels.
        frames: Frames T of a training clip (2 for pairs).
        sampling: How the frames of a training clip are chosen (see `vgen.data.sampling.frame_indices`).
        batch_size: Clips per training batch on each rank.
        num_workers: Reading processes; 0 reads in the training process.
        repeats: Passes over the training set that count as one epoch.
        fps: Rate at which clips are to be shown; None: the data set's own.
        augmentation: Random changes of training clips (see `vgen.data.transforms.augment`).
        augment_at: `published`: where the source has it (`lfdm_clip` before resizing, the others after it).
            `resized`: after resizing but before padding, faster with large originals.
        resize: How frames become square; None: as published for this set.
        stride: Step between frames of the samplings `window` and `first`.
        short_clips: What happens to clips with too few frames.
        eval_frames: Frames of validation and test clips; None: `frames`.
        eval_sampling: How the frames of validation and test clips are chosen; the choice is the same every time.
        eval_batch_size: Clips per validation or test batch; None: `batch_size`.
        val_clips: Number of validation clips, spread evenly over the set; None: all.
        seed: Decides order, frames and augmentation together with the epoch.
        packed: Folder that `vgen data pack` made; read instead of `root`.
        pin_memory: Page-locked batches, faster to copy to a GPU.
    """

    class_names: tuple[str, ...] = ()
    own_fps: ClassVar[float] = 25.0
    own_resize: ClassVar[Resize] = "letterbox"
    crop: ClassVar[Crop | None] = None
    expected: ClassVar[str] = "video files or frame folders"

    def __init__(
        self,
        root: str,
        size: int,
        frames: int,
        sampling: FrameSampling = "random",
        batch_size: int = 8,
        num_workers: int = 0,
        repeats: int = 1,
        fps: float | None = None,
        augmentation: Augmentation = "none",
        augment_at: Literal["published", "resized"] = "published",
        resize: Resize | None = None,
        stride: int = 1,
        short_clips: ShortClips = "repeat_last",
        eval_frames: int | None = None,
        eval_sampling: FrameSampling = "uniform",
        eval_batch_size: int | None = None,
        val_clips: int | None = None,
        seed: int = 0,
        packed: str | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.root, self.packed = Path(root).expanduser(), Path(packed).expanduser() if packed else None
        self.size, self.frames, self.sampling, self.stride = size, frames, sampling, stride
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.repeats, self.pin_memory = num_workers, repeats, pin_memory
        self.augmentation, self.augment_at, self.resize = augmentation, augment_at, resize or self.own_resize
        self.short_clips, self.seed, self.val_clips = short_clips, seed, val_clips
        self.eval_frames, self.eval_sampling = eval_frames or frames, eval_sampling
        self._fps = fps
        self._datasets: dict[Split, ClipDataset] = {}
        for name in ("size", "frames", "batch_size", "repeats", "stride"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}", where=f"data.init_args.{name}")

    # What a subclass says -------------------------------------------------------------------------------------------

    def find_clips(self) -> list[ClipRecord]:
        """Names every clip of the layout under `self.root` without opening any."""
        raise NotImplementedError

    # What models and commands ask -----------------------------------------------------------------------------------

    @property
    def clip_spec(self) -> ClipSpec:
        """What one training clip looks like; needs the folder, but opens no video of a known data set."""
        self._require_folder()
        names, keys = self._names_and_keys()
        return ClipSpec(self.frames, self.size, self.size, 3, self._show_fps(), names, keys)

    @cached_property
    def index(self) -> ClipIndex:
        """All readable clips, looked up once (see `vgen.data.clips`)."""
        self._require_folder()
        if self._pack is not None:
            return self._pack.index
        return build_index(self.root, self.find_clips(), self.expected)

    @property
    def fingerprint(self) -> str:
        """Changes with the clips, for caches of latents and statistics."""
        return self.index.fingerprint

    @property
    def replaced(self) -> int:
        """How many clips were replaced so far in training and validation because their file could not be read."""
        return sum(dataset.replaced for dataset in self._datasets.values())

    def dataset(self, split: Split) -> ClipDataset:
        """The clips of one set; without a set for validation, that is the test set, thinned to `val_clips`."""
        if split not in self._datasets:
            self._datasets[split] = self._make_dataset(split)
        return self._datasets[split]

    @property
    def repeatable(self) -> bool:
        """Whether a training clip is the same in every epoch: no random frames and no augmentation."""
        return self.augmentation == "none" and self.sampling in ("uniform", "first")

    def ordered_train_dataloader(self) -> DataLoader[Any]:
        """The training clips once, in their order, on every rank: for caches and statistics."""
        dataset = self.dataset("train")
        return self._loader(
            dataset, ResumableSampler(len(dataset), 1, False, self.seed), self.batch_size, drop_last=False
        )

    def first_clips(self, split: Split, count: int) -> dict[str, Any]:
        """The first clips of a set as one batch, the same on every rank: for pictures during training."""
        dataset = self.dataset(split)
        batch = collate([dataset[ClipRequest(0, position)] for position in range(min(count, len(dataset)))])
        if isinstance(batch, Exception):
            raise batch
        return {key: value for key, value in batch.items() if not key.startswith("_")}

    # Lightning ------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Looks the clips up on one process per machine, so that the others find the stored index."""
        _ = self.index

    def setup(self, stage: str) -> None:
        """Nothing to do: everything is looked up when it is first asked for."""

    def train_dataloader(self) -> "DataLoader[Any] | Batches":
        """Shuffled, sharded over ranks, resumable in the middle of an epoch.

        Under `Trainer(overfit_batches=...)` every epoch is the same, in the set's order.
        """
        dataset, (rank, world_size) = self.dataset("train"), self._ranks()
        if self._overfits:
            dataset = copy.copy(dataset)
            dataset.training = False  # every epoch is like the first
            sampler = ResumableSampler(len(dataset), 1, False, self.seed, rank, world_size)
            return Batches(self._loader(dataset, sampler, self.batch_size, drop_last=True))
        sampler = ResumableSampler(len(dataset), self.repeats, True, self.seed, rank, world_size)
        return self._loader(dataset, sampler, self.batch_size, drop_last=True)

    def val_dataloader(self) -> "DataLoader[Any] | Batches":
        """The same clips and frames every time."""
        loader = self._eval_dataloader("val")
        return Batches(loader) if self._overfits else loader

    def test_dataloader(self) -> DataLoader[Any]:
        """The same clips and frames every time."""
        return self._eval_dataloader("test")

    def predict_dataloader(self) -> "Batches":
        """The test set."""
        return Batches(self._eval_dataloader("test"))

    # Details --------------------------------------------------------------------------------------------------------

    @cached_property
    def _pack(self) -> PackedClips | None:
        folder = self.packed or (self.root if is_packed(self.root) else None)
        return None if folder is None else PackedClips(folder)

    def _require_folder(self) -> None:
        if self.packed is not None:
            if not is_packed(self.packed):
                raise UserError("not a packed data set", str(self.packed), "`vgen data pack` makes one")
        elif not self.root.is_dir():
            raise UserError(f"no data: {type(self).__name__} expects {self.expected}", where=str(self.root))
        elif not os.access(self.root, os.R_OK | os.X_OK):
            raise UserError("the data folder may not be read", str(self.root), "see its permissions (chmod)")

    def _names_and_keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self._pack is not None:
            names = self._pack.class_names
        else:
            names = self.class_names
        return names, ("label", "text", "subject") if names else ()

    def _show_fps(self) -> float:
        if self._fps is not None:
            return self._fps
        return self._pack.fps if self._pack is not None else self.own_fps

    def _make_dataset(self, split: Split) -> ClipDataset:
        training = split == "train"
        records = self.index.of(split)
        if split == "val":
            records = self._thin(records or self.index.of("test"))
        frames = self.frames if training else self.eval_frames
        sampling = self.sampling if training else self.eval_sampling
        if self.short_clips == "drop":
            needed = (frames - 1) * self.stride + 1 if sampling in ("window", "first") else frames
            records = tuple(r for r in records if r.frames >= needed)
        if not records:
            where = str(self.packed or self.root)
            raise UserError(f"no clip in the {split} set", where, f"expected {self.expected}; see `vgen data check`")
        pack = self._pack
        reader: Reader = FileReader(self.root) if pack is None else pack
        transform = ClipTransform(
            size=self.size,
            resize=self.resize,
            crop=None if pack is not None and pack.cropped else self.crop,
            augmentation=self.augmentation if training else "none",
            before_resize=self.augmentation == "lfdm_clip" and self.augment_at == "published",
            before_pad=self.augment_at == "resized",
        )
        if training and pack is not None and pack.side and transform.before_resize and not pack.lossless:
            raise UserError(
                f"the set was packed at {pack.side} px, but augmentation lfdm_clip comes before resizing",
                where=str(pack.root),
                hint="set augment_at: resized, or pack with --size native",
            )
        names, _ = self._names_and_keys()
        return ClipDataset(
            records=records,
            reader=reader,
            transform=transform,
            class_names=names,
            fps=self._show_fps(),
            frames=frames,
            sampling=sampling,
            stride=self.stride,
            short=self.short_clips,
            seed=self.seed,
            training=training,
            replace=split != "test",  # a figure is about the clips that it names; a training goes on
        )

    def _thin(self, records: tuple[ClipRecord, ...]) -> tuple[ClipRecord, ...]:
        count = min(self.val_clips or len(records), len(records))
        return tuple(records[i * len(records) // count] for i in range(count))

    def _ranks(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    @property
    def _overfits(self) -> bool:
        return self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _eval_dataloader(self, split: Split) -> DataLoader[Any]:
        dataset, (rank, world_size) = self.dataset(split), self._ranks()
        sampler = ResumableSampler(len(dataset), 1, False, self.seed, rank, world_size)
        return self._loader(dataset, sampler, self.eval_batch_size, drop_last=False)

    def _loader(
        self, dataset: ClipDataset, sampler: ResumableSampler, batch_size: int, drop_last: bool
    ) -> ResumableDataLoader:
        return ResumableDataLoader(
            dataset, sampler, batch_size, self.num_workers, drop_last=drop_last, pin_memory=self.pin_memory
        )
