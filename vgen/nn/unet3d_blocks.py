"""Blocks of the factorised 3D U-Net: time is mixed by temporal attention alone, all convolutions are per frame."""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend, attend_relative
from vgen.nn.embeddings import RelativePositions, rotate
from vgen.nn.norm import ChannelLayerNorm, ChannelRMSNorm
from vgen.nn.pointwise import pointwise
from vgen.nn.precision import at_least_fp32

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Norm = Literal["group", "rms"]
Modulation = Literal["film", "add"]


class Block(nn.Module):
    """Convolution (1, 3, 3), normalisation, optional scale and shift, SiLU.

    Args:
        dim: Input channels.
        dim_out: Output channels.
        groups: GroupNorm groups.
        norm: `group`, over the frames of a clip together, or `rms`, over the channels of each pixel.
    """

    def __init__(self, dim: int, dim_out: int, groups: int, norm: Norm = "group") -> None:
        super().__init__()
        self.proj = nn.Conv3d(dim, dim_out, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.GroupNorm(groups, dim_out) if norm == "group" else ChannelRMSNorm(dim_out)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, dim, T, H, W) and two that broadcast with (B, dim_out, T, H, W) -> (B, dim_out, T, H, W)."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = torch.addcmul(shift, x, scale + 1)
        return F.silu(x)


class ResnetBlock(nn.Module):
    """Two blocks and a residual, modulated by the condition.

    Args:
        dim: Input channels.
        dim_out: Output channels.
        groups: GroupNorm groups.
        cond_dim: Size of the condition, or None for no condition.
        norm: See `Block`.
        modulation: The condition scales and shifts the first block's normalised features (`film`), or is added to
            its output (`add`).
        dropout: Share of features that are dropped before the second block.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        groups: int = 8,
        cond_dim: int | None = None,
        norm: Norm = "group",
        modulation: Modulation = "film",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.modulation, self.dropout = modulation, dropout
        width = dim_out * (2 if modulation == "film" else 1)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(cond_dim, width)) if cond_dim is not None else None
        self.block1 = Block(dim, dim_out, groups, norm)
        self.block2 = Block(dim_out, dim_out, groups, norm)
        self.res_conv = nn.Conv3d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, dim, T, H, W), condition (B, cond_dim) or of each frame (B, T, cond_dim) -> (B, dim_out, T, H, W)."""
        if self.mlp is None:
            hidden = self.block1(x)
        else:
            signal = self.mlp(condition)
            signal = signal[:, :, None] if signal.ndim == 2 else signal.mT
            signal = signal[..., None, None]  # (B, channels, 1 or T, 1, 1)
            if self.modulation == "film":
                scale, shift = signal.chunk(2, dim=1)
                hidden = self.block1(x, (scale, shift))
            else:
                hidden = self.block1(x) + signal
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout, self.training)
        return self.block2(hidden) + self.res_conv(x)


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
        tokens = self.norm(x.permute(0, 2, 3, 4, 1)).flatten(2, 3).flatten(0, 1)  # (B T, H W, C)

        def heads(weight: Tensor) -> Tensor:
            """(B T heads, d, H W), contiguous: a matrix for each head, without a copy."""
            return pointwise(weight, tokens.mT).unflatten(1, (self.heads, -1)).flatten(0, 1)

        q, k, v = map(heads, self.to_qkv.weight.flatten(1).chunk(3))
        q, k = at_least_fp32(q).softmax(dim=1).to(v.dtype), at_least_fp32(k).softmax(dim=2).to(v.dtype)
        context = torch.bmm(v, k.mT) * self.scale  # (B T heads, d of v, d of k): the scale goes with what is smallest
        seen = torch.bmm(context, q).unflatten(0, (-1, self.heads)).flatten(1, 2)
        out = pointwise(self.to_out.weight.flatten(1), seen, cast(Tensor, self.to_out.bias))
        return x + out.unflatten(-1, (height, width)).unflatten(0, (batch, -1)).transpose(1, 2)


class AxialAttention(nn.Module):
    """Residual pre-norm softmax attention along one axis: frames at each pixel, or pixels of each frame.

    Tokens are kept sequence first, (L, N, C): heads and sequences then have a common stride, and attention reads them
    without a copy.

    Args:
        dim: Channels.
        heads: Attention heads.
        dim_head: Channels of a head.
        axis: What the tokens are: `time` (frames) or `space` (pixels).
        max_distance: Distance of two frames from which on they share an embedding of their relative position (Shaw et
            al. 2018, for keys and values); None: no such embeddings.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dim_head: int = 32,
        axis: Literal["time", "space"] = "time",
        max_distance: int | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.axis, self.scale = heads, axis, dim_head**-0.5
        self.norm = ChannelLayerNorm(dim)
        self.to_qkv = nn.Linear(dim, heads * dim_head * 3, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)
        self.relative_k = self.relative_v = None
        if max_distance is not None:
            self.relative_k = RelativePositions(dim_head, max_distance)
            self.relative_v = RelativePositions(dim_head, max_distance)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        alone: Tensor | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            x: (B, C, T, H, W).
            bias: Added to the logits of frames, (heads or 1, T, T).
            rotary: Angles of the frames' positions.
            alone: (B,) bool: in these clips every frame sees itself alone.

        Returns:
            The shape of x.
        """
        if self.axis == "time":
            tokens, back = self.norm(x.permute(2, 0, 3, 4, 1)), (1, 4, 0, 2, 3)
        else:
            tokens, back = self.norm(x.permute(3, 4, 0, 2, 1)), (2, 4, 3, 0, 1)
        shape = tokens.shape
        tokens = tokens.flatten(1, 3) if self.axis == "time" else tokens.flatten(2, 3).flatten(0, 1)
        wq, wk, wv = self.to_qkv.weight.chunk(3)
        # the scale goes into the weights, which are fewer than the activations
        q, k = self._project(tokens, wq * self.scale, rotary), self._project(tokens, wk, rotary)
        v = self._project(tokens, wv)
        if self.relative_k is not None and self.relative_v is not None:
            length = len(tokens)
            seen = attend_relative(q, k, v, self.relative_k(length), self.relative_v(length), bias)
        else:
            seen = attend(q, k, v, bias, scale=1.0)
        if alone is not None:  # attention to itself alone gives the value itself
            seen = torch.where(alone.repeat_interleave(len(v) // len(alone))[:, None, None, None], v, seen)
        out = self.to_out(seen.permute(2, 0, 1, 3).flatten(2))
        return x + out.view(*shape[:-1], -1).permute(back)

    def _project(self, tokens: Tensor, weight: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(L, N, C), (heads d, C) -> (N, heads, L, d), turned by the position of each token.

        A rotation is linear: with more sequences than channels, the weights are turned for every position in place of
        all activations.
        """
        if rotary is None:
            out = F.linear(tokens, weight)
        else:
            cos, sin = (table[:, None, None] for table in rotary)
            if tokens.shape[1] >= tokens.shape[2]:
                turned = rotate(weight.unflatten(0, (self.heads, -1)).permute(2, 0, 1), cos, sin)
                out = torch.bmm(tokens, turned.flatten(2))
            else:
                out = rotate(F.linear(tokens, weight).unflatten(-1, (self.heads, -1)), cos, sin).flatten(2)
        return out.unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3)


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
