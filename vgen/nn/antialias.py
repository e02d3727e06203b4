"""Gaussian anti-aliased down-sampling of images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gaussian_kernel(scale: float) -> Tensor:
    """The normalised low-pass kernel for a down-sampling to `scale` of the size.

    The standard deviation is (1/scale - 1)/2 pixels and the side 2 round(4 sigma) + 1: 5, 13 and 29 pixels for 1/2,
    1/4 and 1/8.

    Returns:
        (k, k), fp32, sum 1.
    """
    sigma = (1 / scale - 1) / 2
    side = 2 * round(4 * sigma) + 1
    offsets = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(side)
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


class AntiAliasDownsample(nn.Module):
    """Blurs with a Gaussian (zero padding), then keeps every int(1/scale)-th pixel from index 0.

    Only the kept pixels are computed (a strided convolution). Scale 1 is the identity and has no buffer.

    Args:
        channels: Image channels C.
        scale: Output side / input side, at most 1.
        persistent: Whether the kernel is part of the state dict, as released LFDM weights have it.
    """

    weight: Tensor

    def __init__(self, channels: int, scale: float, persistent: bool = True) -> None:
        super().__init__()
        self.channels, self.scale = channels, scale
        self.stride = int(1 / scale)
        if scale != 1:
            kernel = gaussian_kernel(scale)
            self.register_buffer("weight", kernel.expand(channels, 1, *kernel.shape).clone(), persistent)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s)) with s = int(1/scale)."""
        if self.scale == 1:
            return image
        weight = self.weight.to(image.dtype)
        padding = weight.shape[-1] // 2
        with torch.autocast(image.device.type, enabled=False):  # regions and losses begin with it, and it costs little
            return F.conv2d(image, weight, padding=padding, stride=self.stride, groups=self.channels)
