"""The clips of a benchmark: one data set in one form, for every recipe's stages and for what judges them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgen.cli.trained import build_data
from vgen.configurable import class_path
from vgen.data.datamodules import DATA_SETS, VideoDataModule
from vgen.data.dataset import ClipDataset
from vgen.data.sampling import collate
from vgen.data.splits import Split
from vgen.errors import UserError

# The first frame shows which digit it is, so that a clip without motion would show its class too. A clip that stands
# still is the same with its frames shuffled, and any flicker makes it another class.
DEFAULTS: dict[str, dict[str, Any]] = {"moving_digits": {"labels": "motion", "still": False}}
_HALVES_SEED = 0  # not the benchmark's: other seeds are judged on the same clips


@dataclass
class BenchmarkClips:
    """A data set with its size, frames and frame choice.

    Args:
        name: Key of `DATA_SETS`.
        root: Folder of the set.
        size: Height and width of the frames in pixels.
        frames: Frames T of a clip.
        options: Further arguments of the DataModule.

    Raises:
        UserError: An argument does not fit, the data is not there, or it has no classes.
    """

    name: str
    root: str
    size: int
    frames: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Settles the frame choice: that of the set's evaluation, for training too. So a clip is always the same."""
        self.class_path = class_path(DATA_SETS[self.name])
        given = {**DEFAULTS.get(self.name, {}), **self.options}
        self.init_args: dict[str, Any] = {
            "augmentation": "none",
            **given,
            "root": self.root,
            "size": self.size,
            "frames": self.frames,
            "eval_frames": self.frames,
        }
        sampling = given.get("sampling") or build_data(self.config(), "--data-option").eval_sampling
        self.init_args |= {"sampling": sampling, "eval_sampling": sampling}
        if not self.module.clip_spec.class_names:
            raise UserError("the benchmark's judge reads classes, and the data has none", f"--data {self.name}")

    def config(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`{"class_path", "init_args"}` as a recipe has it, with other values for some arguments."""
        return {"class_path": self.class_path, "init_args": {**self.init_args, **(changes or {})}}

    @cached_property
    def module(self) -> VideoDataModule:
        """The DataModule of whole clips."""
        return build_data(self.config(), "--data-option")

    def chained(self, clips: int) -> VideoDataModule:
        """The DataModule of the same videos, so many clips of each one behind the other.

        Raises:
            UserError: The videos are too short, or a video is read as several clips.
        """
        frames = clips * self.frames
        module = build_data(self.config({"frames": frames, "eval_frames": frames}), "--chain")
        if len(module.dataset("test")) != len(self.module.dataset("test")):
            raise UserError(f"the videos do not all have {frames} frames in one piece", "--chain")
        return module

    def source(self, split: Split) -> "DatasetClips":
        """The clips of a set for metrics, each read when it is asked for."""
        settings = {key: value for key, value in self.init_args.items() if key != "root"}
        return DatasetClips(self.module.dataset(split), self.module.fingerprint, self.name, split, settings)

    def halves(self, clips: int) -> tuple[list[int], list[int]]:
        """Two sets of numbers of held-out clips, equally many, at most `clips` each.

        The first are what generated clips are compared with; from the second come first frames, classes and texts to
        generate from. A model that was given the first frames of the very clips that it is compared with could come
        closer to them than other real clips do.

        Raises:
            UserError: Fewer than four held-out clips.
        """
        total = len(self.module.dataset("test"))
        count = min(clips, total // 2)
        if count < 2:
            raise UserError(f"{total} held-out clips are too few to compare", f"--data {self.name}")
        order = np.random.default_rng(_HALVES_SEED).permutation(total)
        first, second = sorted(order[:count].tolist()), sorted(order[count : 2 * count].tolist())
        return first, second


def read_batch(data: VideoDataModule, numbers: Sequence[int]) -> dict[str, Any]:
    """Held-out clips as one batch (see `VideoDataModule`)."""
    dataset = data.dataset("test")
    batch = collate([dataset[number] for number in numbers])
    if isinstance(batch, Exception):
        raise batch
    return {key: value for key, value in batch.items() if not key.startswith("_")}


class DatasetClips:
    """The clips of a `ClipDataset` as a `vgen.metrics.sources.ClipSource`: every clip is a video of its own.

    Args:
        dataset: Reads them.
        fingerprint: Of the set's records.
        data: Name of the set.
        split: Part of the set.
        settings: Arguments of the DataModule, which decide the frames.
    """

    def __init__(
        self, dataset: ClipDataset, fingerprint: str, data: str, split: str, settings: Mapping[str, Any]
    ) -> None:
        self.dataset, self.fingerprint = dataset, fingerprint
        self.data, self.split, self.settings = data, split, settings
        # Some frame choices make several clips of one record.
        self._records = [r for r, n in zip(dataset.records, dataset.windows(), strict=True) for _ in range(n)]

    def __len__(self) -> int:
        return len(self._records)

    @property
    def ids(self) -> Sequence[str]:
        """See `ClipSource`."""
        return [f"{number:08d}" for number in range(len(self))]

    @property
    def lengths(self) -> Sequence[int]:
        """See `ClipSource`."""
        return [self.dataset.frames] * len(self)

    @property
    def labels(self) -> Sequence[int] | None:
        """See `ClipSource`."""
        labels = [record.label for record in self._records]
        return [label for label in labels if label is not None] if None not in labels else None

    @property
    def subjects(self) -> Sequence[str] | None:
        """See `ClipSource`."""
        subjects = [record.subject for record in self._records]
        return subjects if all(subjects) else None

    @property
    def texts(self) -> Sequence[str] | None:
        """See `ClipSource`."""
        texts = [record.text for record in self._records]
        return texts if all(texts) else None

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """See `ClipSource`."""
        item = self.dataset[number]
        if isinstance(item, Exception):
            raise item
        video: Tensor = item["video"]
        return video[:, torch.as_tensor(list(frames))]
