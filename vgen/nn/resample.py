"""Resampling of images by a factor of two: by 2x2 means and repetition, or with a small FIR filter.

The filters are StyleGAN2's (Karras et al. 2020, appendix B): outside of an image there are zeros, and a convolution
that comes with the resampling is done at the finer size, without a border of its own in between.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Direction = Literal["up", "down"]


def box_resample(x: Tensor, direction: Direction) -> Tensor:
    """Doubles the size by repetition, or halves it by 2x2 means.

    Args:
        x: (B, C, H, W).
        direction: up or down.

    Returns:
        (B, C, 2H, 2W) or (B, C, H // 2, W // 2).
    """
    return F.interpolate(x, scale_factor=2, mode="nearest") if direction == "up" else F.avg_pool2d(x, 2)


def fir_kernel(taps: Sequence[float]) -> Tensor:
    """The separable filter of one-dimensional taps: (k, k), fp32, sum 1; (1, 1) is a box, (1, 3, 3, 1) binomial."""
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def fir_up(x: Tensor, kernel: Tensor) -> Tensor:
    """Doubles the size: zeros between the pixels, then four times the filter.

    Args:
        x: (B, C, H, W).
        kernel: (k, k) of `fir_kernel`, k >= 2.

    Returns:
        (B, C, 2H, 2W).
    """
    size = len(kernel)
    full = F.conv_transpose2d(x, _each_channel(4 * kernel, x), stride=2, groups=x.shape[1])
    before = size - 2 - (size - 1) // 2
    return full[:, :, before : before + 2 * x.shape[2], before : before + 2 * x.shape[3]]


def fir_down(x: Tensor, kernel: Tensor) -> Tensor:
    """Halves the size: the filter, of which every second pixel is kept.

    Args:
        x: (B, C, H, W), even sides.
        kernel: (k, k) of `fir_kernel`, k >= 2.

    Returns:
        (B, C, H/2, W/2).
    """
    return _filtered(x, kernel, len(kernel) - 2, stride=2)


def fir_conv_up(x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor) -> Tensor:
    """Doubles the size: zeros between the pixels, a convolution, four times the filter.

    Args:
        x: (B, C, H, W).
        weight: (D, C, s, s), s odd.
        bias: (D,).
        kernel: (k, k) of `fir_kernel`.

    Returns:
        (B, D, 2H, 2W).
    """
    full = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
    out = _filtered(full, 4 * kernel, len(kernel) - weight.shape[-1] + 1)
    return out if bias is None else out + bias.view(-1, 1, 1)


def fir_conv_down(x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor) -> Tensor:
    """Halves the size: the filter and a convolution, of which every second pixel is kept.

    Args:
        x: (B, C, H, W), even sides.
        weight: (D, C, s, s), s odd.
        bias: (D,).
        kernel: (k, k) of `fir_kernel`.

    Returns:
        (B, D, H/2, W/2).
    """
    return F.conv2d(_filtered(x, kernel, len(kernel) + weight.shape[-1] - 3), weight, bias, stride=2)


def _filtered(x: Tensor, kernel: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Convolves every channel with `padding` zeros in all around, the larger half before."""
    x = F.pad(x, ((padding + 1) // 2, padding // 2) * 2)
    return F.conv2d(x, _each_channel(kernel.flip(0, 1), x), stride=stride, groups=x.shape[1])


def _each_channel(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
