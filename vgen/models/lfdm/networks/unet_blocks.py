"""Blocks of LFDM's 3D U-Net: time is mixed by temporal attention alone, all convolutions are per frame."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend
from vgen.nn.norm import ChannelLayerNorm

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class Block(nn.Module):
    """Convolution (1, 3, 3), GroupNorm, optional scale and shift, SiLU."""

    def __init__(self, dim: int, dim_out: int, groups: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(dim, dim_out, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.GroupNorm(groups, dim_out)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, dim, T, H, W) and two (B, dim_out, 1, 1, 1) -> (B, dim_out, T, H, W)."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return F.silu(x)


class ResnetBlock(nn.Module):
    """Two blocks and a residual; the condition scales and shifts the first.

    Args:
        dim: Input channels.
        dim_out: Output channels.
        groups: GroupNorm groups.
        cond_dim: Size of the condition, or None for no condition.
    """

    def __init__(self, dim: int, dim_out: int, groups: int = 8, cond_dim: int | None = None) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(cond_dim, dim_out * 2)) if cond_dim is not None else None
        self.block1 = Block(dim, dim_out, groups)
        self.block2 = Block(dim_out, dim_out, groups)
        self.res_conv = nn.Conv3d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, dim, T, H, W), (B, cond_dim) -> (B, dim_out, T, H, W)."""
        scale_shift = None
        if self.mlp is not None:
            scale, shift = self.mlp(condition)[:, :, None, None, None].chunk(2, dim=1)
            scale_shift = (scale, shift)
        return self.block2(self.block1(x, scale_shift)) + self.res_conv(x)


class SpatialLinearAttention(nn.Module):
    """Residual pre-norm linear attention over the pixels of each frame.

    q is normalised over features, k over pixels; the cost is linear in the number of pixels.

    Args:
        dim: Channels.
        heads: Attention heads.
        dim_head: Channels of a head; 32 in every official network, whatever the temporal heads have.
    """

    def __init__(self, dim: int, heads: int, dim_head: int = 32) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim_head**-0.5
        self.norm = ChannelLayerNorm(dim)
        self.to_qkv = nn.Conv2d(dim, heads * dim_head * 3, 1, bias=False)
        self.to_out = nn.Conv2d(heads * dim_head, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        batch, _, _, height, width = x.shape
        frames = self.norm(x).transpose(1, 2).flatten(0, 1)
        q, k, v = self.to_qkv(frames).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # (B T, heads, d, H W)
        q = q.softmax(dim=-2) * self.scale
        k = k.softmax(dim=-1)
        context = k @ v.to(k.dtype).mT
        out = (context.mT @ q.to(context.dtype)).flatten(1, 2).unflatten(-1, (height, width))
        return x + self.to_out(out).unflatten(0, (batch, -1)).transpose(1, 2)


class AxialAttention(nn.Module):
    """Residual pre-norm softmax attention along one axis: frames at each pixel, or pixels of each frame.

    Args:
        dim: Channels.
        heads: Attention heads.
        dim_head: Channels of a head.
        axis: What the tokens are: `time` (frames) or `space` (pixels).
    """

    def __init__(self, dim: int, heads: int, dim_head: int = 32, axis: Literal["time", "space"] = "time") -> None:
        super().__init__()
        self.heads, self.axis = heads, axis
        self.norm = ChannelLayerNorm(dim)
        self.to_qkv = nn.Linear(dim, heads * dim_head * 3, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None = None, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, C, T, H, W), bias (heads, T, T), rotary angles -> the shape of x."""
        order = (0, 3, 4, 2, 1) if self.axis == "time" else (0, 2, 3, 4, 1)
        tokens = self.norm(x).permute(order)
        shape = tokens.shape[:-1]
        tokens = tokens.flatten(0, 2) if self.axis == "time" else tokens.flatten(2, 3).flatten(0, 1)
        q, k, v = self.to_qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = self.to_out(attend(q, k, v, bias, rotary).transpose(1, 2).flatten(2))
        back = (0, 4, 3, 1, 2) if self.axis == "time" else (0, 4, 1, 2, 3)
        return x + out.view(*shape, -1).permute(back)


def downsample(dim: int) -> nn.Module:
    """Halves height and width."""
    return nn.Conv3d(dim, dim, (1, 4, 4), (1, 2, 2), (0, 1, 1))


def upsample(dim: int, use_deconv: bool, padding_mode: PaddingMode) -> nn.Module:
    """Doubles height and width, by a transposed convolution or by nearest up-sampling and a convolution."""
    if use_deconv:
        return nn.ConvTranspose3d(dim, dim, (1, 4, 4), (1, 2, 2), (0, 1, 1))
    return nn.Sequential(
        nn.Upsample(scale_factor=(1, 2, 2), mode="nearest"),
        nn.Conv3d(dim, dim, (1, 3, 3), padding=(0, 1, 1), padding_mode=padding_mode),
    )


def split_conv(conv: nn.Conv3d, moving: Tensor, static: Tensor) -> Tensor:
    """conv(concat(moving, static repeated over frames)) with the static part convolved once.

    A convolution is linear in its input channels, so this is exact; LFDM's z0 is 256 of 259 input channels.

    Args:
        conv: Kernel (1, k, k), stride 1.
        moving: (B, C1, T, H, W).
        static: (B, C2, H, W), with C1 + C2 the input channels of `conv`.

    Returns:
        (B, out, T, H, W).
    """
    channels = moving.shape[1]
    padding = conv.padding[1:]
    once = F.conv2d(static, conv.weight[:, channels:, 0], padding=padding)  # type: ignore[arg-type]
    each = F.conv3d(moving, conv.weight[:, :channels], conv.bias, padding=(0, *padding))  # type: ignore[arg-type]
    return each + torch.unsqueeze(once, 2)
