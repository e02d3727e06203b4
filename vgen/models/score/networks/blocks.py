"""Blocks that the U-Nets of score SDE and EDM have in common."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend
from vgen.nn.precision import FullPrecisionBuffers
from vgen.nn.resample import Direction, box_resample, fir_conv_down, fir_conv_up, fir_down, fir_kernel, fir_up

Activation = Literal["swish", "elu", "relu", "lrelu"]
#: Gain of what ends a residual branch: small enough to begin as nothing, and not exactly zero.
NEARLY_ZERO = 1e-5


def activate(x: Tensor, kind: Activation) -> Tensor:
    """The named non-linearity."""
    if kind == "swish":
        return F.silu(x)
    if kind == "elu":
        return F.elu(x)
    return F.relu(x) if kind == "relu" else F.leaky_relu(x, 0.2)


def group_norm(channels: int, per_group: int, eps: float) -> nn.GroupNorm:
    """Group norm of at most 32 groups with at least `per_group` channels each."""
    return nn.GroupNorm(min(32, channels // per_group), channels, eps=eps)


def xavier_(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Uniform Glorot weights times `gain`, biases zero; returns the layer."""
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, gain)
    return layer


class FourierEmbedding(FullPrecisionBuffers):
    """[sin(2 pi t w), cos(2 pi t w)] with random frequencies w ~ N(0, scale^2) (Tancik et al. 2020).

    Args:
        dim: Even size of the embedding.
        scale: Standard deviation of the frequencies.
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(dim // 2) * scale)

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, dim), fp32."""
        angle = torch.outer(time.float(), self.frequencies) * (2 * math.pi)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class Resample(FullPrecisionBuffers):
    """Doubles or halves the size, with a 3x3 convolution of its own where it has channels to make.

    Args:
        direction: up or down.
        taps: Of the FIR filter; None and (1, 1) are nearest neighbours and 2x2 means.
    """

    kernel: Tensor

    def __init__(self, direction: Direction, taps: tuple[float, ...] | None) -> None:
        super().__init__()
        self.direction = direction
        self.box = taps is None or tuple(taps) == (1, 1)
        self.register_buffer("kernel", fir_kernel(taps or (1, 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W) or (B, C, H/2, W/2)."""
        if self.box:
            return box_resample(x, self.direction)
        return fir_up(x, self.kernel) if self.direction == "up" else fir_down(x, self.kernel)


class ConvResample(FullPrecisionBuffers):
    """Doubles or halves the size with a 3x3 convolution.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        direction: up or down.
        taps: Of the FIR filter; with None, nearest neighbours before the convolution or a stride of two in it.
    """

    kernel: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, direction: Direction, taps: tuple[float, ...] | None
    ) -> None:
        super().__init__()
        self.direction, self.filtered = direction, taps is not None
        self.conv = nn.Conv2d(in_channels, out_channels, 3)
        xavier_(self.conv)
        self.register_buffer("kernel", fir_kernel(taps or (1, 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, 2H, 2W) or (B, out_channels, H/2, W/2)."""
        weight, bias = self.conv.weight, self.conv.bias
        if self.filtered:
            resample = fir_conv_up if self.direction == "up" else fir_conv_down
            return resample(x, weight, bias, self.kernel)
        if self.direction == "up":
            return F.conv2d(box_resample(x, "up"), weight, bias, padding=1)
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)


class ResBlock(nn.Module):
    """Two convolutions with a residual; the noise level shifts, or scales and shifts, the second norm.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        embedding: Size of the embedding of the noise level; None for none.
        resample: Double or halve the size in both branches, before the first convolution.
        taps: See `Resample`.
        project: A 1x1 convolution in the skip of a resampling block also where the channels stay.
        adaptive_scale: Scale and shift the normalised features (ADM); otherwise shift them before the norm.
        per_group: See `group_norm`.
        eps: Of the norms.
        skip_scale: Factor of the sum of both branches.
        dropout: Of the second convolution's input.
        activation: Non-linearity.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int | None,
        resample: Direction | None = None,
        taps: tuple[float, ...] | None = None,
        project: bool = True,
        adaptive_scale: bool = False,
        per_group: int = 4,
        eps: float = 1e-6,
        skip_scale: float = 1.0,
        dropout: float = 0.0,
        activation: Activation = "swish",
    ) -> None:
        super().__init__()
        self.adaptive_scale, self.skip_scale, self.activation = adaptive_scale, skip_scale, activation
        self.norm0 = group_norm(in_channels, per_group, eps)
        self.conv0 = xavier_(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.affine = xavier_(nn.Linear(embedding, out_channels * (2 if adaptive_scale else 1))) if embedding else None
        self.norm1 = group_norm(out_channels, per_group, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = xavier_(nn.Conv2d(out_channels, out_channels, 3, padding=1), NEARLY_ZERO)
        projected = in_channels != out_channels or (resample is not None and project)
        self.skip = xavier_(nn.Conv2d(in_channels, out_channels, 1)) if projected else nn.Identity()
        self.resample = Resample(resample, taps) if resample is not None else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """(B, in_channels, H, W) and the activated embedding (B, E) -> (B, out_channels, H', W')."""
        h = self.conv0(self.resample(activate(self.norm0(x), self.activation)))
        if self.affine is None:
            h = self.norm1(h)
        elif self.adaptive_scale:
            scale, shift = self.affine(embedding)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + self.affine(embedding)[:, :, None, None])
        h = self.conv1(self.dropout(activate(h, self.activation)))
        return (self.skip(self.resample(x)) + h) * self.skip_scale


class AttentionBlock(nn.Module):
    """Residual softmax attention over the pixels of an image.

    Args:
        channels: Channels C.
        heads: Attention heads; the projection's channels are (heads, C/heads, q k v).
        per_group: See `group_norm`.
        eps: Of the norm.
        skip_scale: Factor of the sum of both branches.
    """

    def __init__(
        self, channels: int, heads: int = 1, per_group: int = 4, eps: float = 1e-6, skip_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.skip_scale = heads, skip_scale
        self.norm = group_norm(channels, per_group, eps)
        self.qkv = xavier_(nn.Conv2d(channels, 3 * channels, 1), math.sqrt(0.2))
        self.proj = xavier_(nn.Conv2d(channels, channels, 1), NEARLY_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (self.heads, -1, 3))  # (B, heads, d, 3, L)
        q, k, v = (each.mT for each in qkv.unbind(3))
        seen = attend(q, k, v).mT.flatten(1, 2).unflatten(-1, x.shape[2:])
        return (x + self.proj(seen)) * self.skip_scale
