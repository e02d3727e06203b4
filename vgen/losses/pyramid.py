"""Image pyramids, and the L1 distance between them."""

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.nn.antialias import AntiAliasDownsample
from vgen.nn.precision import at_least_fp32


class ImagePyramid(nn.Module):
    """Anti-aliased copies of an image at several scales; its kernels are constants outside of any state dict.

    Args:
        scales: Side of each copy / side of the image.
        num_channels: Image channels.
    """

    def __init__(self, scales: tuple[float, ...] = (1, 0.5, 0.25, 0.125), num_channels: int = 3) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.downs = nn.ModuleList(AntiAliasDownsample(num_channels, scale, persistent=False) for scale in self.scales)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> one (N, C, h, w) for each scale."""
        return [down(image) for down in self.downs]


class L1Pyramid(Configurable, nn.Module):
    """Sum over scales of weight x mean |prediction - target|: the light alternative to `VGGPyramid`.

    Args:
        scales: Side of each copy / side of the image.
        weight: Weight of each scale.
        num_channels: Image channels.
    """

    def __init__(
        self, scales: tuple[float, ...] = (1, 0.5, 0.25, 0.125), weight: float = 10.0, num_channels: int = 3
    ) -> None:
        super().__init__()
        self.weight = weight
        self.pyramid = ImagePyramid(scales, num_channels)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Two (N, C, H, W) -> scalar, in fp32."""
        difference = at_least_fp32(prediction) - at_least_fp32(target)
        distances = [level.abs().mean() for level in self.pyramid(difference)]  # a pyramid is linear
        return self.weight * torch.stack(distances).sum()
