"""Convolutions that keep (or halve, or double) the size of what they see, padded with more zeros in front."""

import torch.nn.functional as F
from torch import Tensor, nn

Axes = tuple[int, int, int]


def _padding(kernel: int, stride: Axes) -> tuple[int, ...]:
    """Zeros before and behind each axis, the last axis first."""
    sides: list[int] = []
    for step in reversed(stride):
        total = kernel - step
        sides += [-(-total // 2), total // 2]
    return tuple(sides)


class SameConv3d(nn.Module):
    """3D convolution of padded input: an axis of L becomes L/stride.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Length of the kernel on each axis.
        stride: Of each axis (T, H, W).
        bias: Whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: Axes = (1, 1, 1), bias: bool = True) -> None:
        super().__init__()
        self.padding = _padding(kernel, stride)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W)."""
        out: Tensor = self.conv(F.pad(x, self.padding))
        return out


class SameConvTranspose3d(nn.Module):
    """Transposed 3D convolution: an axis of L becomes L stride. Its input is padded as a convolution's is.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Length of the kernel on each axis.
        stride: Of each axis (T, H, W).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: Axes) -> None:
        super().__init__()
        self.padding = _padding(kernel, stride)
        self.convt = nn.ConvTranspose3d(inputs, outputs, kernel, stride, padding=kernel - 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W)."""
        out: Tensor = self.convt(F.pad(x, self.padding))
        return out
