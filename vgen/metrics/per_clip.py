"""The base of metrics that are a mean over clips and keep one value per clip."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.states import GatheredMetric


class PerClipMetric(GatheredMetric):
    """A mean over clips (float64, over all ranks) whose per-clip values are kept for an interval.

    Attributes:
        clip_values: (N,) float64, the value of each clip, set by `compute`.
        clip_groups: (N,) int64, the group of each clip, set by `compute`; clips without a group have one each.
    """

    higher_is_better: bool | None = True
    values: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("groups", default=[], dist_reduce_fx="cat")
        self.clip_values: Tensor | None = None
        self.clip_groups: Tensor | None = None

    def add(self, values: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds the values (B,) of a batch of clips, with the group (subject) of each."""
        values = values.detach().double()
        self.values.append(values)
        self.groups.append(group_numbers(groups, len(values)).to(values.device))

    def compute(self) -> Tensor:
        """Returns the mean over clips, float64; NaN without clips."""
        return self.gather().mean()

    def gather(self) -> Tensor:
        """Sets `clip_values` and `clip_groups` from the states (inside `compute`: of all ranks); returns the values."""
        if len(self.values) == 0:  # a list, or after a synchronisation a tensor
            return torch.empty(0, dtype=torch.float64)
        self.clip_values = dim_zero_cat(self.values)
        self.clip_groups = separate(dim_zero_cat(self.groups))
        return self.clip_values

    def interval(self, level: float = 0.95, n: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval of the mean, over groups where clips have them; computes first."""
        self.compute()
        if self.clip_values is None or len(self.clip_values) == 0:
            raise ValueError(f"{type(self).__name__} has seen no clips")
        return bootstrap_interval(self.clip_values, self.clip_groups, level, n, seed)


def group_numbers(groups: Sequence[str] | Tensor | None, n: int) -> Tensor:
    """Numbers groups so that all ranks agree on them; -1 where there are none.

    Args:
        groups: Name or number of the group of each of n clips; an empty name is none.
        n: Number of clips.

    Returns:
        (n,) int64.
    """
    if groups is None:
        return torch.full((n,), -1, dtype=torch.int64)
    if isinstance(groups, Tensor):
        return groups.detach().long().reshape(n)
    numbers = [_group_number(str(group)) if group else -1 for group in groups]
    return torch.tensor(numbers, dtype=torch.int64).reshape(n)


def _group_number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little")


def separate(groups: Tensor) -> Tensor:
    """Gives each clip without a group (-1) one of its own: -1, -2, -3, ..."""
    alone = groups < 0
    return torch.where(alone, -alone.long().cumsum(0), groups)
