"""Bringing a latent to the scale of the noise that it is mixed with."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from vgen.nn.precision import FullPrecisionBuffers


class LatentScaling(FullPrecisionBuffers):
    """Affine map of each channel, scale x (z + shift), given or fitted to mean 0 and variance 1.

    Args:
        channels: Channels of the latent.
        scale: For all channels; None: fitted.
        shift: The same.

    Attributes:
        fitted: Whether the numbers are there.
    """

    scale: Tensor
    shift: Tensor
    fitted: Tensor

    def __init__(self, channels: int, scale: float | None = None, shift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((channels,), 1.0 if scale is None else scale))
        self.register_buffer("shift", torch.full((channels,), shift))
        self.register_buffer("fitted", torch.tensor(scale is not None))

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, ...) as it is diffused, fp32."""
        return self._shaped(self.scale, z) * (z.float() + self._shaped(self.shift, z))

    def inverse(self, x0: Tensor) -> Tensor:
        """The latent (B, C, ...) of what was diffused."""
        return x0 / self._shaped(self.scale, x0) - self._shaped(self.shift, x0)

    def _shaped(self, numbers: Tensor, like: Tensor) -> Tensor:
        return numbers.view(-1, *(1,) * (like.ndim - 2))

    @torch.no_grad()
    def fit(self, latents: Iterable[Tensor], gather: Callable[[Tensor], Tensor]) -> None:
        """Computes both from latents (B, C, ...), in fp64.

        Args:
            latents: Latents of this rank.
            gather: Gives the sums of all ranks for this rank's own.
        """
        sums = torch.zeros(3, len(self.scale), dtype=torch.float64)  # count, sum, sum of squares
        for z in latents:
            values = z.transpose(0, 1).flatten(1).double().cpu()
            sums += torch.stack((torch.full((len(values),), values.shape[1]), values.sum(1), values.square().sum(1)))
        count, total, square = gather(sums.to(self.scale.device)).cpu()
        if not float(count.min()):
            raise ValueError("no latent to compute statistics from")
        mean = total / count
        deviation = (square / count - mean**2).clamp(min=1e-8).sqrt()
        self.shift.copy_(-mean)
        self.scale.copy_(1 / deviation)
        self.fitted.fill_(True)
