"""Layers of the first convolutional GANs (Radford et al. 2016) for sequences, frames and clips.

Kernels of 4 and strides of 2: four of them lead from a 16th of each side to the whole.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.video import ClipSpec

Dims = Literal[1, 2, 3]
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
REDUCTION = 16


def sixteenth(clip_spec: ClipSpec, time: bool = False) -> tuple[int, ...]:
    """A 16th of a clip's (frames,) height and width.

    Raises:
        UserError: One of them is no multiple of 16.
    """
    sides = {"height": clip_spec.height, "width": clip_spec.width}
    if time:
        sides = {"frames": clip_spec.frames} | sides
    for name, side in sides.items():
        if side % REDUCTION:
            near = max(side // REDUCTION, 1) * REDUCTION
            key = "frames" if name == "frames" else "size"
            what = f"these networks make and judge multiples of {REDUCTION}, not {name} {side}"
            raise UserError(what, f"data.init_args.{key}", f"use {near}")
    return tuple(side // REDUCTION for side in sides.values())


def batch_norm(dims: Dims, channels: int, eps: float = 1e-5, shift: bool = True) -> nn.Module:
    """BatchNorm; without `shift` it only scales."""
    norm = _NORM[dims](channels, eps=eps)
    if not shift:
        norm.register_parameter("bias", None)
    return norm


class Up(nn.Module):
    """Transposed convolution, BatchNorm, ReLU. It doubles each side, or makes the first map out of a vector.

    Args:
        inputs: Channels.
        outputs: Channels.
        dims: Axes behind the channels.
        base: Sides of the map that is made of a vector, whose sides are 1; None: sides are doubled.
        bias: Whether the convolution has one.
        eps: Of the norm.
        shift: Whether the norm adds something.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dims: Dims,
        base: Sequence[int] | None = None,
        bias: bool = True,
        eps: float = 1e-5,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.conv = doubling(inputs, outputs, dims, bias) if base is None else first_map(inputs, outputs, base, bias)
        self.norm = batch_norm(dims, outputs, eps, shift)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, ...) -> (N, outputs, ...)."""
        return F.relu(self.norm(self.conv(x)))


def doubling(inputs: int, outputs: int, dims: Dims, bias: bool = True) -> nn.Module:
    """Transposed convolution that doubles each side."""
    return _UP[dims](inputs, outputs, 4, stride=2, padding=1, bias=bias)


def first_map(inputs: int, outputs: int, sides: Sequence[int], bias: bool = True) -> nn.Module:
    """Transposed convolution from a vector to a map."""
    return _UP[len(sides)](inputs, outputs, tuple(sides), bias=bias)  # type: ignore[arg-type]


class Down(nn.Module):
    """Convolution of kernel 4, BatchNorm where there is one, leaky ReLU.

    Args:
        inputs: Channels.
        outputs: Channels.
        dims: Axes behind the channels.
        stride: Of each axis, or of all.
        padding: Of each axis, or of all.
        norm: Whether there is a BatchNorm.
        bias: Whether the convolution has one.
        eps: Of the norm.
        shift: Whether the norm adds something.
        slope: Of the leaky ReLU; 0 is a plain one.
        noise: Standard deviation of what is added to the input, in training and else, as MoCoGAN has it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dims: Dims,
        stride: int | tuple[int, ...] = 2,
        padding: int | tuple[int, ...] = 1,
        norm: bool = True,
        bias: bool = True,
        eps: float = 1e-5,
        shift: bool = True,
        slope: float = 0.2,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.slope, self.noise = slope, noise
        self.conv = _CONV[dims](inputs, outputs, 4, stride=stride, padding=padding, bias=bias)  # type: ignore[arg-type]
        self.norm = batch_norm(dims, outputs, eps, shift) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, ...) -> (N, outputs, ...)."""
        x = self.conv(noisy(x, self.noise))
        return F.leaky_relu(x if self.norm is None else self.norm(x), self.slope)


def noisy(x: Tensor, deviation: float) -> Tensor:
    """With normal noise of that standard deviation."""
    return x + deviation * torch.randn_like(x) if deviation else x
