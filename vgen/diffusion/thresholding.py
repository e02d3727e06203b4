"""Keeping an estimated x0 inside the range of the data."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Threshold:
    """What is done to x0 at each sampling step.

    Args:
        kind: none; clamp to [low, high]; or dynamic: s = the percentile of |x0| over each sample, at least 1, then
            clamp to +-s and divide by s (Saharia et al. 2022, section 2.3).
        low: Smallest value, for all or for each channel.
        high: Largest value, for all or for each channel.
        percentile: Of dynamic thresholding, as a fraction. LFDM: 0.9.
    """

    kind: Literal["none", "clamp", "dynamic"] = "clamp"
    low: float | tuple[float, ...] = -1.0
    high: float | tuple[float, ...] = 1.0
    percentile: float = 0.9

    def __call__(self, x0: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        if self.kind == "none":
            return x0
        if self.kind == "clamp":
            return x0.clamp(_bound(self.low, x0), _bound(self.high, x0))
        # not torch.quantile: that refuses more than 2^24 numbers
        values = x0.flatten(1).abs().sort(dim=1).values
        position = self.percentile * (values.shape[1] - 1)
        below = int(position)
        above = min(below + 1, values.shape[1] - 1)
        bound = torch.lerp(values[:, below], values[:, above], position - below).clamp(min=1)
        bound = bound.view(-1, *(1,) * (x0.ndim - 1))
        return torch.maximum(torch.minimum(x0, bound), -bound) / bound


def _bound(value: float | tuple[float, ...], x0: Tensor) -> Tensor:
    bound = torch.tensor(value, dtype=x0.dtype).to(x0.device, non_blocking=True)  # without waiting for the device
    return bound.view(-1, *(1,) * (x0.ndim - 2)) if bound.ndim else bound
