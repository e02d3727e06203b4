"""The network of NCSN and NCSNv2: a RefineNet with dilations and instance norm++ (Song & Ermon 2019, appendix A).

Channels of a map are normalised each on its own, which would lose their means; instance norm++ puts back how far each
lies from the others. In NCSN gain, bias and that share depend on the noise level; NCSNv2 leaves the level out, and
divides the output by sigma instead (Song & Ermon 2020, technique 3).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable

_EPS = 1e-5


class InstanceNormPP(nn.Module):
    """gamma (x_k - mu_k)/s_k + beta + alpha (mu_k - m)/v, m and v mean and deviation of the channels' means mu.

    Args:
        channels: Channels C.
        levels: Noise levels, each with a gamma, beta and alpha of its own; None: one for all.
    """

    def __init__(self, channels: int, levels: int | None) -> None:
        super().__init__()
        rows = levels or 1
        self.conditional = levels is not None
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(rows, channels))
        self.alpha = nn.Parameter(1 + 0.02 * torch.randn(rows, channels))
        self.beta = nn.Parameter(torch.zeros(rows, channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W), level (B,) int64 -> the shape of x."""
        means = x.mean((2, 3))
        apart = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + _EPS).sqrt()
        rows = (table[level] if self.conditional else table for table in (self.gamma, self.alpha, self.beta))
        gamma, alpha, beta = rows
        shift = beta + alpha * apart
        return torch.addcmul(shift[..., None, None], F.instance_norm(x, eps=_EPS), gamma[..., None, None])


class NormedConv(nn.Module):
    """Instance norm++, ELU, convolution of side 3.

    Args:
        channels: Input channels.
        out_channels: Output channels.
        levels: See `InstanceNormPP`.
        dilation: Of the convolution.
    """

    def __init__(self, channels: int, out_channels: int, levels: int | None, dilation: int = 1) -> None:
        super().__init__()
        self.norm = InstanceNormPP(channels, levels)
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        return self.conv(F.elu(self.norm(x, level)))


class ResBlock(nn.Module):
    """Two such convolutions and a residual.

    Args:
        channels: Input channels.
        out_channels: Output channels.
        levels: See `InstanceNormPP`.
        halve: Halve the size behind the convolutions, by 2x2 means.
        dilation: Of the convolutions, instead of that.
    """

    def __init__(
        self, channels: int, out_channels: int, levels: int | None, halve: bool = False, dilation: int = 1
    ) -> None:
        super().__init__()
        self.halve = halve
        self.first = NormedConv(channels, channels if halve else out_channels, levels, dilation)
        self.second = NormedConv(channels if halve else out_channels, out_channels, levels, dilation)
        self.skip: nn.Module = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H', W')."""
        x = self.skip(x) + self.second(self.first(x, level), level)
        return F.avg_pool2d(x, 2) if self.halve else x


class ResidualConvs(nn.Module):
    """RefineNet's residual convolution units: x + two convolutions, several times.

    Args:
        channels: Channels C.
        levels: See `InstanceNormPP`.
        units: How many.
    """

    def __init__(self, channels: int, levels: int | None, units: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            nn.ModuleList([NormedConv(channels, channels, levels) for _ in range(2)]) for _ in range(units)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        for unit in self.units:
            first, second = cast(nn.ModuleList, unit)
            x = x + second(first(x, level), level)
        return x


class RefineBlock(nn.Module):
    """RefineNet's block: residual units of every input, fusion at the largest size, chained pooling, residual units.

    Args:
        channels: Channels of each input.
        out_channels: Output channels.
        levels: See `InstanceNormPP`.
        units: Residual units at the end: 1, and 3 in the last block.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, levels: int | None, units: int = 1) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(ResidualConvs(width, levels, 2) for width in channels)
        self.fuse_norms = nn.ModuleList(InstanceNormPP(width, levels) for width in channels)
        self.fuse = nn.ModuleList(nn.Conv2d(width, out_channels, 3, padding=1) for width in channels)
        self.pool_norms = nn.ModuleList(InstanceNormPP(out_channels, levels) for _ in range(2))
        self.pool = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False) for _ in range(2))
        self.out = ResidualConvs(out_channels, levels, units)

    def forward(self, inputs: Sequence[Tensor], level: Tensor) -> Tensor:
        """Maps (B, C_i, H_i, W_i), the last of which is the largest -> (B, out_channels, H, W)."""
        size, parts = inputs[-1].shape[2:], []
        for x, adapt, norm, conv in zip(inputs, self.adapt, self.fuse_norms, self.fuse, strict=True):
            x = conv(norm(adapt(x, level), level))
            parts.append(x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=True))
        x = path = F.elu(torch.stack(parts).sum(0))
        for norm, conv in zip(self.pool_norms, self.pool, strict=True):
            path = conv(F.avg_pool2d(norm(path, level), 5, stride=1, padding=2))
            x = x + path
        return self.out(x, level)


class NCSN(Configurable, nn.Module):
    """Noisy images and the number of their noise level -> the score (NCSN), or sigma times it (NCSNv2).

    Four stages, of which the second halves the size and the later two dilate their convolutions; four refinements.

    Args:
        resolution: Side of the images, even.
        channels: Image channels.
        model_channels: Base width. Paper: 128 for CIFAR-10 and CelebA.
        levels: Noise levels that the norms tell apart (NCSN; 10 in the paper), counted from the highest; None: NCSNv2,
            for `ScoreNetwork(scale_by_sigma=True)`.
    """

    clips = False
    noise_embedding = "level"
    label_dim = augment_dim = 0

    def __init__(self, resolution: int, channels: int = 3, model_channels: int = 128, levels: int | None = 10) -> None:
        super().__init__()
        self.resolution, self.channels, self.out_channels = resolution, channels, channels
        width, wide = model_channels, 2 * model_channels
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.stages = nn.ModuleList(
            [
                nn.ModuleList([ResBlock(width, width, levels), ResBlock(width, width, levels)]),
                nn.ModuleList([ResBlock(width, wide, levels, halve=True), ResBlock(wide, wide, levels)]),
                nn.ModuleList([ResBlock(wide, wide, levels, dilation=2) for _ in range(2)]),
                nn.ModuleList([ResBlock(wide, wide, levels, dilation=4) for _ in range(2)]),
            ]
        )
        self.refine = nn.ModuleList(
            [
                RefineBlock([wide], wide, levels),
                RefineBlock([wide, wide], wide, levels),
                RefineBlock([wide, wide], width, levels),
                RefineBlock([width, width], width, levels, units=3),
            ]
        )
        self.head = NormedConv(width, channels, levels)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images (B, channels, H, W) and noise levels (B,) -> (B, channels, H, W)."""
        level, maps = noise.long(), []
        x = self.conv_in(x)
        for stage in self.stages:
            for block in cast(nn.ModuleList, stage):
                x = block(x, level)
            maps.append(x)
        first, *others = self.refine
        x = first([maps.pop()], level)
        for refine in others:
            x = refine([x, maps.pop()], level)
        return self.head(x, level)
