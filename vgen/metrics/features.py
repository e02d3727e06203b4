"""Metrics of sets of features: each clip's features are kept with its number, gathered from all ranks and sorted."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed

from vgen.errors import UserError
from vgen.metrics.per_clip import group_numbers
from vgen.metrics.states import GatheredMetric, stack_rows

Side = Literal["real", "fake"]
_FIELDS = ("values", "index", "label", "subject")


@dataclass(frozen=True)
class Features:
    """Features of a set of clips, in the order of the clips' numbers, on the CPU.

    Args:
        values: (N, D), or (N, T, D) of frames.
        index: (N,) int64, number of each clip, increasing.
        label: (N,) int64, class of each clip; -1: none.
        subject: (N,) int64, number of each clip's subject; -1: none.
    """

    values: Tensor
    index: Tensor
    label: Tensor
    subject: Tensor

    @classmethod
    def ordered(cls, values: Tensor, index: Tensor, label: Tensor, subject: Tensor) -> "Features":
        """Sorts by number and drops repetitions (samplers fill uneven shares up with clips that others have)."""
        index = index.cpu()
        order = index.argsort(stable=True)
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[1:] = index[order][1:] != index[order][:-1]
        order = order[kept]
        return cls(values.cpu()[order], index[order], label.cpu()[order], subject.cpu()[order])

    @classmethod
    def of(cls, values: Tensor, label: Tensor | None = None, subject: Tensor | None = None) -> "Features":
        """Features whose order is that of their numbers 0, 1, 2, ..."""
        none = torch.full((len(values),), -1, dtype=torch.int64)
        return cls.ordered(
            values, torch.arange(len(values)), none if label is None else label, none if subject is None else subject
        )

    def where(self, chosen: Tensor) -> "Features":
        """The clips that a mask or a list of positions picks."""
        return Features(self.values[chosen], self.index[chosen], self.label[chosen], self.subject[chosen])

    def __len__(self) -> int:
        return len(self.values)


class FeatureMetric(GatheredMetric):
    """A number read from the features of real and generated clips.

    The states hold the features as they came (float32, exact) with the numbers of their clips; everything else is
    float64 on the CPU, in the order of the clips' numbers. Ranks, workers and batches therefore change no digit.
    """

    higher_is_better: bool | None = False
    least_clips = 1  # of each side that the metric looks at

    def __init__(self) -> None:
        super().__init__()
        for side in ("real", "fake"):
            for field in _FIELDS:
                self.add_state(f"{side}_{field}", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """Computes the metric, float64; None stands for a side that was given no clips.

        Raises:
            UserError: Too few clips.
        """

    def update(
        self,
        features: Tensor,
        real: bool,
        index: Tensor | None = None,
        label: Tensor | None = None,
        subject: Sequence[str] | Tensor | None = None,
    ) -> None:
        """Adds the features of a batch of clips.

        Args:
            features: (B, D), or (B, T, D) of frames.
            real: Which side they belong to.
            index: (B,) number of each clip within its side, the same on all ranks. A number that comes twice counts
                once. None numbers the clips by themselves, which supposes that every one is given once.
            label: (B,) class of each clip.
            subject: Subject of each clip.
        """
        side = "real" if real else "fake"
        n = len(features)
        if index is None:
            index = self._numbers(sum(len(part) for part in getattr(self, f"{side}_values")), n)
        none = torch.full((n,), -1, dtype=torch.int64)
        given = {
            "values": features.detach(),
            "index": index.long(),
            "label": none if label is None else label.long(),
            "subject": group_numbers(subject, n),
        }
        for field, value in given.items():
            getattr(self, f"{side}_{field}").append(value.to(self.device))

    def _numbers(self, done: int, n: int) -> Tensor:
        rank, size = 0, 1
        if distributed.is_available() and distributed.is_initialized():
            rank, size = distributed.get_rank(), distributed.get_world_size()
        return torch.arange(done, done + n) * size + rank

    def side(self, side: Side) -> Features | None:
        """The features of one side (inside `compute`: of all ranks), sorted, without repetitions; None without any.

        Raises:
            UserError: A feature is NaN or infinite.
        """
        stored = [stack_rows(getattr(self, f"{side}_{field}")) for field in _FIELDS]
        values, index, label, subject = stored
        if values is None or index is None or label is None or subject is None or len(values) == 0:
            return None
        features = Features.ordered(values, index, label, subject)
        finite = features.values.flatten(1).isfinite().all(1)
        if not finite.all():
            bad = features.index[~finite].tolist()
            raise UserError(
                f"the features of {len(bad)} {side} clips are not finite (clip {bad[0]} is the first)",
                where="the clips, or the detector's weights",
            )
        return features

    def gathered(self, side: Side) -> Features | None:
        """The features of one side from all ranks; every rank has to ask."""
        with self.sync_context(should_sync=True):
            return self.side(side)

    def compute(self) -> Tensor:
        """Returns the metric over all ranks, float64."""
        return self.score(self.side("real"), self.side("fake"))

    def need(self, features: Features | None, side: Side) -> Features:
        """The features of a side that the metric cannot do without.

        Raises:
            UserError: There are too few.
        """
        found = 0 if features is None else len(features)
        if features is None or found < self.least_clips:
            raise UserError(
                f"{type(self).__name__} needs at least {self.least_clips} {side} clips, got {found}",
                where=f"{side} clips",
            )
        return features
