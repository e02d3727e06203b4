"""Convolution blocks and the hourglass of the flow auto-encoder (MRAA / FOMM naming)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.recompute import recompute


def fast_layout(x: Tensor, training: bool) -> Tensor:
    """The memory layout in which a network runs faster; its convolutions pass it on.

    Channels last for frozen networks (a quarter faster on a CPU, where training gains nothing) and on CUDA, whose
    tensor cores want it.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.is_cuda or not training else x


class Recomputed(nn.Module):
    """A block that, with `checkpointing` on, keeps its input alone for the backward pass."""

    checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Calls `compute`."""
        return recompute(self.compute, x, norms_of=self) if self.checkpointing else self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """The block itself, (N, C, H, W) -> (N, C', H', W')."""
        raise NotImplementedError


class SameBlock2d(Recomputed):
    """Convolution, BatchNorm, ReLU at constant size."""

    def __init__(self, in_features: int, out_features: int, kernel_size: int = 3, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_features, out_features, kernel_size, padding=padding)
        self.norm = nn.BatchNorm2d(out_features)

    def compute(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class DownBlock2d(SameBlock2d):
    """Convolution, BatchNorm, ReLU, 2x2 average pooling."""

    def compute(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H/2, W/2)."""
        return F.avg_pool2d(super().compute(x), 2)


class UpBlock2d(SameBlock2d):
    """Nearest up-sampling by 2, then convolution, BatchNorm, ReLU."""

    def compute(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, 2H, 2W)."""
        return super().compute(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResBlock2d(Recomputed):
    """Pre-activation residual block: x + conv(ReLU(BN(conv(ReLU(BN(x))))))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(features)
        self.norm2 = nn.BatchNorm2d(features)

    def compute(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        out = self.conv1(F.relu(self.norm1(x), inplace=True))
        return x + self.conv2(F.relu(self.norm2(out), inplace=True))


class Encoder(nn.Module):
    """Halves the size `num_blocks` times; level i has min(max_features, block_expansion 2^(i+1)) channels."""

    def __init__(self, block_expansion: int, in_features: int, num_blocks: int = 3, max_features: int = 256) -> None:
        super().__init__()
        widths = [in_features] + [min(max_features, block_expansion * 2 ** (i + 1)) for i in range(num_blocks)]
        self.down_blocks = nn.ModuleList(DownBlock2d(narrow, wide) for narrow, wide in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the input and the output of each level, finest first."""
        outputs = [x]
        for block in self.down_blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class Decoder(nn.Module):
    """Undoes an `Encoder`, concatenating [up-sampled, encoder output] at each resolution, the raw input included."""

    def __init__(self, block_expansion: int, in_features: int, num_blocks: int = 3, max_features: int = 256) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(num_blocks)):
            below = min(max_features, block_expansion * 2 ** (i + 1)) * (1 if i == num_blocks - 1 else 2)
            self.up_blocks.append(UpBlock2d(below, min(max_features, block_expansion * 2**i)))
        self.out_filters = block_expansion + in_features

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Takes the list of the encoder; returns (N, block_expansion + in_features, H, W)."""
        out = levels[-1]
        for block, skip in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            out = torch.cat((block(out), skip), dim=1)
        return out


class Hourglass(nn.Module):
    """Encoder and decoder; the input side must be divisible by 2^num_blocks.

    Args:
        block_expansion: Base width.
        in_features: Input channels.
        num_blocks: Depth.
        max_features: Upper limit of any width.
    """

    def __init__(self, block_expansion: int, in_features: int, num_blocks: int = 3, max_features: int = 256) -> None:
        super().__init__()
        self.encoder = Encoder(block_expansion, in_features, num_blocks, max_features)
        self.decoder = Decoder(block_expansion, in_features, num_blocks, max_features)
        self.out_filters = self.decoder.out_filters

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features, H, W) -> (N, out_filters, H, W)."""
        return self.decoder(self.encoder(x))
