"""The base of all DataModules: index, frame choice, geometry, augmentation and loaders from plain arguments."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from vgen.data.clips import ClipIndex, ClipRecord, build_index
from vgen.data.dataset import ClipDataset, ClipTransform, FileReader, Reader
from vgen.data.packing import PackedClips, is_packed
from vgen.data.presets import CDFVD, MOCOGAN, Preset, TrainOn
from vgen.data.sampling import (
    EXPANDING,
    ClipRequest,
    FrameSampling,
    ResumableDataLoader,
    ResumableSampler,
    ShardSampler,
    ShortClips,
    collate,
    needed_frames,
)
from vgen.data.splits import Split
from vgen.data.transforms import Augmentation, Crop, Filter, Resize, default_filter
from vgen.data.whole_clips import WholeClips, set_name
from vgen.errors import UserError, did_you_mean
from vgen.video.decoding import Decoder
from vgen.video.io import Examination, VideoInfo, examine, probe
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

    A batch is a dict: `video` (B, C, T, H, W) uint8, `frame_index` (B, T) int64 (frame numbers within the clip),
    `fps` (B,) float32, `path` and `subject` (lists of strings) and, where the set has classes, `label` (B,) int64 and
    `text` (list of class names or captions).

    Args:
        root: Folder of the data set, or a folder that `vgen data pack` made of it.
        size: Side of the square frames in pixels, or [height, width].
        frames: Frames T of a training clip (2 for pairs).
        sampling: How the frames of a training clip are chosen (see `vgen.data.sampling.frame_indices`); None: as the
            preset or else this set has it. So for all arguments that a preset names.
        batch_size: Clips per training batch on each rank.
        num_workers: Reading processes; 0 reads in the training process.
        repeats: Passes over the training set that count as one epoch.
        fps: Rate at which clips are to be shown; None: the data set's own.
        augmentation: Random changes of training clips (see `vgen.data.transforms.augment`).
        augment_at: `published`: where the source has it (`lfdm_clip` before resizing, the others after it).
            `resized`: after resizing but before padding, faster with large originals.
        resize: How frames get their size (see `vgen.data.transforms.resize`).
        stride: Step between frames of contiguous samplings.
        short_clips: What happens to clips with too few frames.
        eval_frames: Frames of validation and test clips; None: `frames`.
        eval_sampling: How the frames of validation and test clips are chosen; the choice is the same every time.
        eval_batch_size: Clips per validation or test batch; None: `batch_size`.
        val_clips: Number of validation clips, spread evenly over the set; None: all.
        seed: Decides order, frames and augmentation together with the epoch.
        packed: Folder that `vgen data pack` made; read instead of `root`.
        pin_memory: Page-locked batches, faster to copy to a GPU.
        preset: Whose preparation of the clips (the keys of the class's `presets`). Arguments that are written out go
            before it.
        variant: Which variant of the set (one of the class's `variants`); None: the preset's, or the first.
        train_on: `train`: the official training clips. `all`: the test clips too, as some papers have it.
        filter: With which filter frames are resized (see `vgen.data.transforms.resize`).
        channels: 3, or 1 for brightness alone.
        decoder: What decodes video files (see `vgen.data.dataset.FileReader`).
        read_order: `random`: any training clip may follow any other. `shards`: the shards of a packed set are read one
            after the other (see `vgen.data.sampling.ShardSampler`).
    """

    class_names: tuple[str, ...] = ()
    own_fps: ClassVar[float] = 25.0
    own_resize: ClassVar[Resize] = "crop"
    own_sampling: ClassVar[FrameSampling] = "window"
    own_eval_sampling: ClassVar[FrameSampling] = "first"
    crop: ClassVar[Crop | None] = None
    presets: ClassVar[Mapping[str, Preset]] = {"cdfvd": CDFVD, "mocogan": MOCOGAN}
    variants: ClassVar[tuple[str, ...]] = ()
    expected: ClassVar[str] = "video files or frame folders"
    how_to_get: ClassVar[str | None] = None  # page, size, licence
    dataset_class: ClassVar[type[ClipDataset]] = ClipDataset

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
    ) -> None:
        super().__init__()
        chosen = self._choose(preset)
        self.root, self.packed = Path(root).expanduser(), Path(packed).expanduser() if packed else None
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.frames, self.channels = frames, channels
        self.decoder, self.read_order = decoder, read_order
        self.sampling: FrameSampling = sampling or chosen.sampling or self.own_sampling
        self.stride = chosen.stride or 1 if stride is None else stride
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.repeats, self.pin_memory = num_workers, repeats, pin_memory
        self.augmentation: Augmentation = augmentation or chosen.augmentation or "none"
        self.augment_at, self.jpeg = augment_at, chosen.jpeg
        self.resize: Resize = resize or chosen.resize or self.own_resize
        # A way of resizing that is written out comes with its own filter, not with the preset's.
        self.filter: Filter = filter or (None if resize else chosen.filter) or default_filter(self.resize)
        self.short_clips: ShortClips = short_clips or chosen.short_clips or "repeat_last"
        self.seed, self.val_clips = seed, val_clips
        self.eval_frames = eval_frames or frames
        self.eval_sampling: FrameSampling = eval_sampling or chosen.eval_sampling or self.own_eval_sampling
        self.train_on: TrainOn = train_on or chosen.train_on or "train"
        self.variant = self._check_variant(variant or chosen.variant)
        self._fps = fps
        self._datasets: dict[Split, ClipDataset] = {}
        for name in ("height", "width", "frames", "batch_size", "repeats", "stride"):
            if getattr(self, name) < 1:
                key = "size" if name in ("height", "width") else name
                raise UserError(f"{key} must be at least 1, got {getattr(self, name)}", f"data.init_args.{key}")

    # What a subclass says -------------------------------------------------------------------------------------------

    def find_clips(self) -> list[ClipRecord]:
        """Names every clip of the layout under `self.root` without opening any."""
        raise NotImplementedError

    @property
    def captioned(self) -> bool:
        """Whether clips come with captions of their own."""
        return False

    def files(self) -> list[str]:
        """The files and frame folders that clips are read from, relative to the root."""
        return list(dict.fromkeys(record.path for record in self._wanted()))

    def look(self, path: Path) -> VideoInfo:
        """Length, size and rate of one file, without decoding it."""
        return probe(path)

    def examine(self, path: Path) -> Examination:
        """Decodes one file completely, for `vgen data check`."""
        return examine(path)

    def reader(self) -> Reader:
        """What reads the frames of the set's own files."""
        return FileReader(self.root, self.decoder)

    def look_up(self) -> ClipIndex:
        """All readable clips of the set's own files."""
        return build_index(self.root, self._wanted(), self.expected, self.look)

    # What models and commands ask -----------------------------------------------------------------------------------

    @property
    def clip_spec(self) -> ClipSpec:
        """What one training clip looks like; needs the folder, but opens no video of a known data set."""
        self._require_folder()
        names, keys = self._names_and_keys()
        return ClipSpec(self.frames, self.height, self.width, self.channels, self._show_fps(), names, keys)

    @cached_property
    def index(self) -> ClipIndex:
        """All readable clips, looked up once (see `vgen.data.clips`)."""
        self._require_folder()
        index = self.look_up() if self._pack is None else self._pack.index
        if self.train_on == "train":
            return index
        # The papers that train on everything evaluate on it, too.
        everything = [replace(r, split="train") for r in index.records if r.split == "test"]
        return replace(index, records=(*index.records, *everything))

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
        fixed = ("uniform", "uniform_floor", "first", *EXPANDING)
        return self.augmentation == "none" and self.sampling in fixed and self.short_clips != "zero_first_half"

    def ordered_train_dataloader(self) -> DataLoader[Any]:
        """The training clips once, in their order, on every rank: for caches and statistics."""
        dataset = self.dataset("train")
        return self._loader(
            dataset, ResumableSampler(len(dataset), 1, False, self.seed), self.batch_size, drop_last=False
        )

    def first_clips(self, split: Split, count: int) -> dict[str, Any]:
        """The first clips of a set as one batch, the same on every rank: for pictures during training."""
        return self.clips_at((split, position) for position in range(min(count, len(self.dataset(split)))))

    def clips_at(self, places: Iterable[tuple[Split, int]]) -> dict[str, Any]:
        """The clips at some positions of sets (of epoch 0) as one batch, the same on every rank."""
        batch = collate([self.dataset(split)[ClipRequest(0, position)] for split, position in places])
        if isinstance(batch, Exception):
            raise batch
        return {key: value for key, value in batch.items() if not key.startswith("_")}

    def whole_clips(self, split: str) -> WholeClips:
        """The clips of a set (`train+test`: of both) in their whole lengths, for an evaluation.

        Raises:
            UserError: No such set.
        """
        known: tuple[Split, ...] = get_args(Split)
        for name in split.split("+"):
            if name not in known:
                hint = did_you_mean(name, known) or f"there are {', '.join(known)}, train+test"
                raise UserError(f"no set {name!r}", "split", hint)
        if (pack := self._pack) is not None and pack.side and not pack.lossless:
            self._compare(pack)
        return WholeClips(
            records=tuple(r for name in split.split("+") for r in self.index.records if r.split == name),
            reader=self.reader() if pack is None else pack,
            transform=self._transform("none"),
            channels=self.channels,
            fingerprint=self.fingerprint,
            data=set_name(self),
            split=split,
            fps=self._show_fps(),
        )

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
        if self.read_order == "random":
            sampler = ResumableSampler(len(dataset), self.repeats, True, self.seed, rank, world_size)
        elif self._pack is not None:
            shards = np.repeat([self._pack.shard_of(r) for r in dataset.records], dataset.windows())
            sampler = ShardSampler(shards, self.repeats, self.seed, rank, world_size)
        else:
            raise UserError("only a packed set has shards", "data.init_args.read_order", "`vgen data pack` makes one")
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
        if folder is None:
            return None
        pack = PackedClips(folder)
        if pack.variant and pack.variant != self.variant:
            raise UserError(
                f"the set was packed as variant {pack.variant}, not {self.variant}",
                str(folder),
                "pack the other one, too",
            )
        return pack

    def _require_folder(self) -> None:
        if self.packed is not None:
            if not is_packed(self.packed):
                raise UserError("not a packed data set", str(self.packed), "`vgen data pack` makes one")
        elif not self.root.is_dir():
            raise self._no_data()
        elif not os.access(self.root, os.R_OK | os.X_OK):
            raise UserError("the data folder may not be read", str(self.root), "see its permissions (chmod)")

    def _wanted(self) -> list[ClipRecord]:
        clips = self.find_clips()
        if not clips:
            raise self._no_data()
        return clips

    def _no_data(self, what: str | None = None) -> UserError:
        """An error that says what was expected where, and how to get it."""
        return UserError(
            f"no data: {type(self).__name__} expects {what or self.expected}", str(self.root), self.how_to_get
        )

    def _choose(self, preset: str | None) -> Preset:
        if preset is None:
            return Preset("")
        if preset not in self.presets:
            hint = did_you_mean(preset, self.presets) or f"it has {', '.join(sorted(self.presets))}"
            raise UserError(f"{type(self).__name__} has no preset {preset!r}", "data.init_args.preset", hint)
        return self.presets[preset]

    def _check_variant(self, variant: str | None) -> str:
        if variant is not None and variant not in self.variants:
            known = f"it has {', '.join(self.variants)}" if self.variants else "it has none"
            hint = did_you_mean(variant, self.variants) or known
            raise UserError(f"{type(self).__name__} has no variant {variant!r}", "data.init_args.variant", hint)
        return variant or (self.variants[0] if self.variants else "")

    def _names_and_keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self._pack is not None:
            names, captioned = self._pack.class_names, any(r.text for r in self._pack.index.records)
        else:
            names, captioned = self.class_names, self.captioned
        return names, ("label", "text", "subject") if names else ("text",) if captioned else ()

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
        needed = needed_frames(sampling, frames, self.stride, self.short_clips)
        long = tuple(r for r in records if r.frames >= needed)
        if not long:
            where = str(self.packed or self.root)
            if records:
                raise UserError(f"no clip in the {split} set has the {needed} frames that {sampling} needs", where)
            raise UserError(f"no clip in the {split} set", where, f"expected {self.expected}; see `vgen data check`")
        pack = self._pack
        transform = self._transform(self.augmentation if training else "none")
        if training and pack is not None and pack.side and transform.before_resize and not pack.lossless:
            raise UserError(
                f"the set was packed at {pack.side} px, but augmentation lfdm_clip comes before resizing",
                where=str(pack.root),
                hint="set augment_at: resized, or pack with --size native",
            )
        if pack is not None and pack.side and not pack.lossless:
            self._compare(pack)
        names, _ = self._names_and_keys()
        return self.dataset_class(
            records=long,
            reader=self.reader() if pack is None else pack,
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
            channels=self.channels,
        )

    def _transform(self, augmentation: Augmentation) -> ClipTransform:
        return ClipTransform(
            size=(self.height, self.width),
            resize=self.resize,
            filter=self.filter,
            crop=None if self._pack is not None and self._pack.cropped else self.crop,
            jpeg=self.jpeg,
            augmentation=augmentation,
            before_resize=self.augmentation == "lfdm_clip" and self.augment_at == "published",
            before_pad=self.augment_at == "resized",
        )

    def _compare(self, pack: PackedClips) -> None:
        """Refuses a set that was packed in another way than it is to be read: what was resized cannot be undone."""
        if (pack.resize, pack.filter) != (self.resize, self.filter):
            raise UserError(
                f"the set was packed with resize {pack.resize}, filter {pack.filter}; "
                f"asked for are {self.resize}, {self.filter}",
                where=str(pack.root),
                hint="pack it with the same preset, resize and filter, or with --size native",
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
