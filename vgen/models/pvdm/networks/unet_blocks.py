"""Blocks of the plane U-Net, as in guided diffusion (Dhariwal & Nichol 2021): residual, attention, resampling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend
from vgen.nn.init import zeroed
from vgen.nn.recompute import recompute
from vgen.nn.resample import Direction, box_resample


class ResBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with a shortcut; the time embedding acts on the second norm.

    Args:
        inputs: Input channels.
        embedding: Width of the time embedding.
        outputs: Output channels.
        groups: GroupNorm groups.
        scale_shift: The embedding scales and shifts what is normalised; otherwise it is added before.
        resampling: Halves or doubles both sides between the first norm and convolution, and in the shortcut.
    """

    def __init__(
        self,
        inputs: int,
        embedding: int,
        outputs: int,
        groups: int,
        scale_shift: bool,
        resampling: Direction | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift, self.resampling = scale_shift, resampling
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.embed = nn.Linear(embedding, 2 * outputs if scale_shift else outputs)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, groups: Sequence[Tensor], embedding: Tensor) -> list[Tensor]:
        """Planes of equal shape stacked in the batch, each (n B, inputs, a, b), and (B, embedding) after its SiLU."""
        each = self.embed(embedding)[:, :, None, None]
        return [self._apply_to(x, each.repeat(len(x) // len(each), 1, 1, 1)) for x in groups]

    def _apply_to(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self._resampled(F.silu(self.norm1(x))))
        if self.scale_shift:
            scale, shift = embedding.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + embedding)
        return self.skip(self._resampled(x)) + self.conv2(F.silu(h))

    def _resampled(self, x: Tensor) -> Tensor:
        return x if self.resampling is None else box_resample(x, self.resampling)


class Resample(nn.Module):
    """Halves or doubles both sides of planes without a residual block, with or without a convolution."""

    def __init__(self, channels: int, way: Direction, learned: bool) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if way == "down" else 1, padding=1) if learned else None

    def forward(self, groups: Sequence[Tensor], embedding: Tensor) -> list[Tensor]:
        """Each (N, C, a, b); the embedding is not used."""
        if self.conv is None:
            return [box_resample(x, self.way) for x in groups]
        return [self.conv(x if self.way == "down" else box_resample(x, "up")) for x in groups]


class SelfAttention(nn.Module):
    """Residual pre-norm attention of all tokens of a set, without positions.

    Args:
        channels: Channels C.
        heads: Attention heads.
        groups: GroupNorm groups.
        head_major: q, k and v of one head lie together in the channels of `qkv`, as in released weights; otherwise
            the heads of q, then those of k and v.
        checkpointing: Compute activations again in the backward pass instead of keeping them.
    """

    def __init__(self, channels: int, heads: int, groups: int, head_major: bool, checkpointing: bool) -> None:
        super().__init__()
        self.heads, self.head_major, self.checkpointing = heads, head_major, checkpointing
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, C, L) -> the same shape."""
        return recompute(self._forward, tokens) if self.checkpointing else self._forward(tokens)

    def _forward(self, tokens: Tensor) -> Tensor:
        # tokens before channels: q, k and v then have stride 1 in their last dimension, as fused kernels want them
        qkv = self.qkv(self.norm(tokens).mT)
        if self.head_major:
            q, k, v = qkv.unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = attend(q, k, v).transpose(1, 2).flatten(2)
        return tokens + self.proj_out(seen).mT


class PlaneAttention(SelfAttention):
    """Attention within each plane."""

    def forward(self, groups: Sequence[Tensor], embedding: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Each (N, C, a, b); the embedding is not used."""
        return [super(PlaneAttention, self).forward(x.flatten(2)).view(x.shape) for x in groups]


class CrossPlaneAttention(SelfAttention):
    """Attention of the tokens of all planes of a clip, which is what ties the planes together."""

    def forward(self, groups: Sequence[Tensor], embedding: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Each (n B, C, a, b), n planes stacked; of the embedding (B, ...), only the batch size is used."""
        batch = len(embedding)
        planes = [plane.flatten(2) for x in groups for plane in x.split(batch)]
        mixed = iter(super().forward(torch.cat(planes, dim=-1)).split([p.shape[-1] for p in planes], dim=-1))
        return [torch.cat([next(mixed) for _ in range(len(x) // batch)]).view(x.shape) for x in groups]
