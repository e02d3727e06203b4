"""How much generated clips move, against real ones."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.per_clip import PerClipMetric


def motion_energy(video: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring frames.

    Args:
        video: (B, C, T, H, W) in [-1, 1], T >= 2.

    Returns:
        (B,) float64, in units of the value range per frame.
    """
    return (video[:, :, 1:] - video[:, :, :-1]).abs().flatten(1).double().mean(1)


class MotionEnergy(PerClipMetric):
    """Mean motion energy of generated clips divided by that of real clips: 1 is right, 0 is a still picture.

    Attributes:
        clip_values: (N,) float64, the energy of each generated clip, set by `compute`.
        clip_reals: (N,) float64, the energy of each real clip, set by `compute`.
    """

    higher_is_better = None
    reals: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("reals", default=[], dist_reduce_fx="cat")
        self.clip_reals: Tensor | None = None

    def update(self, generated: Tensor, real: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds generated and real clips, each (B, C, T, H, W) in [-1, 1], in pairs (of the same source frame)."""
        if len(generated) != len(real):
            raise ValueError(f"{len(generated)} generated and {len(real)} real clips are not pairs")
        self.add(motion_energy(generated), groups)
        self.reals.append(motion_energy(real).to(generated.device))

    def compute(self) -> Tensor:
        """Returns the ratio of the means, float64; NaN without clips."""
        generated = self.gather()
        if len(generated) == 0:
            return torch.tensor(float("nan"), dtype=torch.float64)
        self.clip_reals = dim_zero_cat(self.reals)
        return generated.mean() / self.clip_reals.mean()

    def interval(self, level: float = 0.95, n: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval of the ratio, pairs and groups drawn together; computes first."""
        self.compute()
        if self.clip_values is None or len(self.clip_values) == 0:
            raise ValueError("MotionEnergy has seen no clips")
        return bootstrap_interval(self.clip_values, self.clip_groups, level, n, seed, denominator=self.clip_reals)
