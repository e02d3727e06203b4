"""What LFDM diffuses: sequences of latent flow and occlusion, in the paper's form or standardised."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from vgen.codecs import Latent
from vgen.nn.precision import FullPrecisionBuffers
from vgen.nn.warp import coordinate_grid

_SMALLEST_STD = 0.02  # a channel that hardly varies (saturated occlusion) must not be blown up


class FlowTarget(FullPrecisionBuffers):
    """Maps flow and occlusion to the diffused tensor and back.

    The released models diffuse (flow x, flow y, 2 occlusion - 1) with absolute sampling coordinates. `residual` takes
    the identity grid off, `standardise` gives each channel zero mean and unit variance over the training set, and
    z0 unit variance: with both, a small model learns in minutes what otherwise takes hours.

    Args:
        form: `absolute` sampling coordinates (published) or `residual`.
        standardise: Standardise channels and scale z0.

    Attributes:
        fitted: Whether the statistics have been computed (or loaded).
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    feature_std: Tensor
    fitted: Tensor

    def __init__(self, form: Literal["absolute", "residual"] = "absolute", standardise: bool = False) -> None:
        super().__init__()
        self.form, self.standardise = form, standardise
        if standardise:
            for name, value in (("mean", 0.0), ("std", 1.0), ("low", -1.0), ("high", 1.0)):
                self.register_buffer(name, torch.full((3,), value))
            self.register_buffer("feature_std", torch.ones(()))
            self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def _grid(self, flow: Tensor) -> Tensor:
        grid = coordinate_grid(flow.shape[-2], flow.shape[-1], device=flow.device, dtype=flow.dtype)
        return grid.permute(2, 0, 1)[None, :, None]

    def _raw(self, flow: Tensor, occlusion: Tensor) -> Tensor:
        flow = flow - self._grid(flow) if self.form == "residual" else flow
        return torch.cat((flow, occlusion * 2 - 1), dim=1).float()

    def forward(self, flow: Tensor, occlusion: Tensor) -> Tensor:
        """x0 (B, 3, T, h, w) of flow (B, 2, T, h, w) and occlusion (B, 1, T, h, w) in [0, 1]."""
        x0 = self._raw(flow, occlusion)
        return (x0 - _shape(self.mean)) / _shape(self.std) if self.standardise else x0

    def inverse(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and occlusion (clamped to [0, 1]) of x0."""
        if self.standardise:
            x0 = x0 * _shape(self.std) + _shape(self.mean)
        flow, occlusion = x0[:, :2], ((x0[:, 2:] + 1) / 2).clamp(0, 1)
        return flow + self._grid(flow) if self.form == "residual" else flow, occlusion

    def scale_features(self, features: Tensor) -> Tensor:
        """z0 as the denoiser sees it."""
        return features / self.feature_std if self.standardise else features

    @torch.no_grad()
    def fit(self, batches: Iterable[Latent]) -> None:
        """Computes the statistics from `flow`, `occlusion` and `features` (z0) of training batches, in fp64."""
        count, values = 0, 0
        total = square = power = torch.zeros((), dtype=torch.float64, device=self.mean.device)
        low: Tensor | None = None
        high: Tensor | None = None
        for latent in batches:
            features = latent["features"]
            raw = self._raw(latent["flow"], latent["occlusion"]).transpose(0, 1).flatten(1).double()
            count += raw.shape[1]
            total, square = total + raw.sum(1), square + raw.square().sum(1)
            low = raw.amin(1) if low is None else torch.minimum(low, raw.amin(1))
            high = raw.amax(1) if high is None else torch.maximum(high, raw.amax(1))
            power, values = power + features.double().square().sum(), values + features.numel()
        if low is None or high is None:
            raise ValueError("no batch to compute statistics from")
        mean = total / count
        std = (square / count - mean**2).clamp(min=0).sqrt().clamp(min=_SMALLEST_STD)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.low.copy_((low - mean) / std)
        self.high.copy_((high - mean) / std)
        self.feature_std.copy_((power / values) ** 0.5)
        self.fitted.fill_(True)


def _shape(values: Tensor) -> Tensor:
    return values.view(1, 3, 1, 1, 1)
