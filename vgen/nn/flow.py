"""Optical flow networks: SpyNet (Ranjan & Black, CVPR 2017) in its two published PyTorch variants."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.nn.precision import FullPrecisionBuffers, at_least_fp32
from vgen.nn.warp import coordinate_grid

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WIDTHS = (8, 32, 64, 32, 16, 2)  # two images and a flow field in, a flow field out
_COARSEST = 32  # pixels of a side at which both variants stop going down


def displace(features: Tensor, flow: Tensor) -> Tensor:
    """Reads `features` at (x + u, y + v), bilinearly between pixel centres; outside is the border.

    Args:
        features: (N, C, H, W).
        flow: (N, 2, H, W), displacement (u, v) in pixels.

    Returns:
        (N, C, H, W).
    """
    height, width = flow.shape[-2:]
    shift = torch.stack((flow[:, 0] * (2 / max(width - 1, 1)), flow[:, 1] * (2 / max(height - 1, 1))), dim=-1)
    grid = coordinate_grid(height, width, flow.device, flow.dtype) + shift
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _twice(flow: Tensor) -> Tensor:
    """A flow field at twice the size, in pixels of that size."""
    return 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)


class SpyNetLevel(nn.Module):
    """Five 7x7 convolutions with ReLU between them: the residual flow of one pyramid level."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 7, padding=3) for a, b in pairwise(_WIDTHS))

    def forward(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """Images (N, 3, H, W) and the flow so far (N, 2, H, W) -> refined flow (N, 2, H, W)."""
        *inner, last = self.convs
        dtype = next(self.parameters()).dtype
        x = torch.cat((first, displace(second, flow), flow), dim=1).to(dtype)
        for conv in inner:
            x = F.relu(conv(x))
        return flow + last(x).to(flow.dtype)


class SpyNet(Configurable, FullPrecisionBuffers):
    """Flow from one image to another, coarse to fine; the two variants give other numbers with the same weights.

    mmediting (BasicVSR's, and VIDM's): RGB; resized to multiples of 32; six levels whatever the size; the coarsest
    level starts from zero flow at its own size.

    sniklaus: BGR; levels only while a side exceeds 32 pixels, of which the coarsest used takes the first weights; the
    start is zero flow at half the coarsest size, and where doubling falls short of an odd side, the last row or column
    is repeated.

    The weights' authors allow non-commercial research only, so none come with the package.

    Args:
        variant: Which of the two.
        levels: Pyramid levels that there are weights for.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, variant: Literal["mmediting", "sniklaus"] = "mmediting", levels: int = 6) -> None:
        super().__init__()
        self.variant = variant
        self.levels = nn.ModuleList(SpyNetLevel() for _ in range(levels))
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow of `first` towards `second`: second read at (x + u, y + v) looks like first.

        Args:
            first: (N, 3, H, W), trained on [0, 1].
            second: Like `first`.

        Returns:
            (N, 2, H, W) displacement (u, v) in pixels, fp32.
        """
        with torch.autocast(first.device.type, enabled=False):  # a bf16 coordinate is off by whole pixels
            first, second = at_least_fp32(first), at_least_fp32(second)
            return self._fixed_depth(first, second) if self.variant == "mmediting" else self._by_size(first, second)

    def _fixed_depth(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        multiple = 1 << (len(self.levels) - 1)
        size = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        if size != (height, width):
            first, second = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (first, second))
        pyramid = self._pyramid(first, second, len(self.levels) - 1)
        flow = first.new_zeros(len(first), 2, *pyramid[0][0].shape[-2:])
        for i, (level, images) in enumerate(zip(self.levels, pyramid, strict=True)):
            flow = level(*images, _twice(flow) if i else flow)
        if size != (height, width):
            flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
            flow = torch.stack((flow[:, 0] * (width / size[1]), flow[:, 1] * (height / size[0])), dim=1)
        return flow

    def _by_size(self, first: Tensor, second: Tensor) -> Tensor:
        largest, halvings = max(first.shape[-2:]), 0
        while largest > _COARSEST and halvings < len(self.levels) - 1:
            largest, halvings = largest // 2, halvings + 1
        pyramid = self._pyramid(first.flip(1), second.flip(1), halvings)
        height, width = pyramid[0][0].shape[-2:]
        flow = first.new_zeros(len(first), 2, height // 2, width // 2)
        for level, images in zip(self.levels, pyramid, strict=False):
            flow = _twice(flow)
            missing = [wanted - got for wanted, got in zip(images[0].shape[-2:], flow.shape[-2:], strict=True)]
            flow = level(*images, F.pad(flow, (0, missing[1], 0, missing[0]), mode="replicate"))
        return flow

    def _pyramid(self, first: Tensor, second: Tensor, halvings: int) -> list[tuple[Tensor, Tensor]]:
        """Standardised images from coarse to fine."""
        pyramid = [((first - self.mean) / self.std, (second - self.mean) / self.std)]
        for _ in range(halvings):
            finer = pyramid[0]
            pyramid.insert(0, (F.avg_pool2d(finer[0], 2), F.avg_pool2d(finer[1], 2)))
        return pyramid
