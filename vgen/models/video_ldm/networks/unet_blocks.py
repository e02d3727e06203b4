"""Blocks of LVDM's U-Net, with the release's module names."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend, attend_relative
from vgen.nn.embeddings import RelativePositions
from vgen.nn.init import zeroed

Triple = tuple[int, int, int]
_HALF = (1, 2, 2)


class Downsample(nn.Module):
    """Halves height and width.

    Args:
        width: Channels.
        learned: By a convolution of stride 2, else by the mean.
        kernel: Kernel of the convolution.
        padding: Its padding.
    """

    def __init__(self, width: int, learned: bool, kernel: Triple, padding: Triple) -> None:
        super().__init__()
        self.op = (
            nn.Conv3d(width, width, kernel, stride=_HALF, padding=padding) if learned else nn.AvgPool3d(_HALF, _HALF)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, H/2, W/2)."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Doubles height and width by repetition, and a convolution where it is learned; arguments as in `Downsample`."""

    def __init__(self, width: int, learned: bool, kernel: Triple, padding: Triple) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, width, kernel, padding=padding) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
        return x if self.conv is None else self.conv(x)


class ResBlock(nn.Module):
    """Two normalised convolutions and a residual, modulated by the noise level.

    Args:
        width: Input channels.
        width_out: Output channels.
        time_dim: Size of the embedding of the noise level.
        dropout: Before the second convolution.
        film: The embedding scales and shifts the features, else it is added.
        kernel: Of the convolutions.
        padding: Of the convolutions.
        activation: Makes the activation function.
        resample: Change of the resolution inside the block.
    """

    def __init__(
        self,
        width: int,
        width_out: int,
        time_dim: int,
        dropout: float,
        film: bool,
        kernel: Triple,
        padding: Triple,
        activation: Callable[[], nn.Module] = nn.SiLU,
        resample: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        self.film = film
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, width), activation(), nn.Conv3d(width, width_out, kernel, padding=padding)
        )
        change = {"down": Downsample, "up": Upsample}
        self.resample = None if resample is None else change[resample](width, False, kernel, padding)
        self.emb_layers = nn.Sequential(activation(), nn.Linear(time_dim, width_out * (2 if film else 1)))
        last = zeroed(nn.Conv3d(width_out, width_out, kernel, padding=padding))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, width_out), activation(), nn.Dropout(dropout), last)
        self.skip_connection = nn.Identity() if width == width_out else nn.Conv3d(width, width_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, width, T, H, W), (B, time_dim) -> (B, width_out, T, H', W')."""
        norm, activation, conv = self.in_layers
        hidden = activation(norm(x))
        if self.resample is not None:
            hidden, x = self.resample(hidden), self.resample(x)
        hidden = conv(hidden)
        signal = self.emb_layers(embedding)[:, :, None, None, None]
        if self.film:
            norm, *rest = self.out_layers
            scale, shift = signal.chunk(2, dim=1)
            hidden = torch.addcmul(shift, norm(hidden), 1 + scale)
            for layer in rest:
                hidden = layer(hidden)
        else:
            hidden = self.out_layers(hidden + signal)
        return self.skip_connection(x) + hidden


class SpaceTimeAttention(nn.Module):
    """Residual self-attention over the pixels of each frame, then over the frames at each pixel.

    Embeddings of relative positions are added to keys and values in time; the term of the keys has query and key
    swapped, as in the release, on which its weights rest.

    Args:
        width: Channels.
        heads: Attention heads.
        max_distance: Distance of frames from which on relative positions are the same; None: no relative positions.
    """

    def __init__(self, width: int, heads: int, max_distance: int | None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be parted into {heads} heads")
        self.heads, head = heads, width // heads
        self.scale = head**-0.5
        self.norm_s, self.norm_t = nn.GroupNorm(32, width), nn.GroupNorm(32, width)
        self.qkv_s, self.qkv_t = nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, 3 * width, 1)
        self.relative_position_k = self.relative_position_v = None
        if max_distance is not None:
            self.relative_position_k = RelativePositions(head, max_distance)
            self.relative_position_v = RelativePositions(head, max_distance)
        self.proj_out_s, self.proj_out_t = zeroed(nn.Conv1d(width, width, 1)), zeroed(nn.Conv1d(width, width, 1))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, C, T, H, W), bias of the logits of frames (1, T, T) -> the shape of x."""
        batch, width, frames, *side = x.shape
        tokens = self.norm_s(x.transpose(1, 2).reshape(-1, width, side[0] * side[1]))
        q, k, v = self._heads(tokens, self.qkv_s)
        seen = attend(q, k, v, scale=self.scale)
        x = x + _joined(seen, self.proj_out_s).view(batch, frames, *side, width).permute(0, 4, 1, 2, 3)
        tokens = self.norm_t(x.permute(0, 3, 4, 1, 2).reshape(-1, width, frames))
        q, k, v = self._heads(tokens, self.qkv_t)
        if self.relative_position_k is None or self.relative_position_v is None:
            seen = attend(q, k, v, bias, scale=self.scale)
        else:
            # The release scales q and k by the root of the scale each, and the positions' term has q alone.
            keys = self.relative_position_k(frames) * self.scale**-0.5
            values = self.relative_position_v(frames)
            seen = attend_relative(q * self.scale, k, v, keys, values, bias, swapped=True)
        return x + _joined(seen, self.proj_out_t).view(batch, *side, frames, width).permute(0, 4, 3, 1, 2)

    def _heads(self, tokens: Tensor, qkv: nn.Conv1d) -> tuple[Tensor, ...]:
        """(N, C, L) -> three (N, heads, L, d) whose last dimension is dense, as fused attention needs it."""
        out = F.linear(tokens.mT, qkv.weight[..., 0], qkv.bias)
        return out.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def _joined(seen: Tensor, projection: nn.Module) -> Tensor:
    """(N, heads, L, d) -> (N, L, C)."""
    return F.linear(seen.transpose(1, 2).flatten(2), projection.weight[..., 0], projection.bias)  # type: ignore[index, arg-type]
