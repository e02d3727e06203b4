"""Transformers of the autoencoder: attention over space and time (TimeSformer), and over one axis (projectors)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend
from vgen.nn.embeddings import quarter_turn
from vgen.nn.precision import FullPrecisionBuffers, at_least_fp32
from vgen.nn.recompute import recompute

RopeLayout = Literal["half_split_adjacent", "paired"]
Tables = tuple[Tensor, Tensor]


def time_angles(frames: int, dim: int, layout: RopeLayout) -> Tensor:
    """Rotary angles of the frames: position times 10000^(-2i/dim).

    Quirk of the release: its table is [f, f] (`half_split_adjacent`), made for rotations that pair feature i with
    i + dim/2, but it rotates neighbours. The two features of a pair then turn at different rates, and the map is no
    rotation. Released weights need it. `paired` gives both features of a pair the same angle.

    Returns:
        (frames, dim).
    """
    frequencies = 1.0 / 10000 ** (torch.arange(0, dim, 2).float() / dim)
    angle = torch.outer(torch.arange(frames).float(), frequencies)
    return angle.repeat(1, 2) if layout == "half_split_adjacent" else angle.repeat_interleave(2, dim=-1)


def space_angles(height: int, width: int, dim: int, max_frequency: float = 10.0) -> Tensor:
    """Axial rotary angles of the patches of a frame: dim/2 features turn with the row, dim/2 with the column.

    Rows and columns have coordinates from -1 to 1, and frequencies pi 2^u with u from 0 to log2(max_frequency/2).

    Returns:
        (height width, dim), row by row.
    """
    # On the CPU first: torch's own linspace mixes devices where the default one is meta.
    scales = torch.logspace(0.0, math.log2(max_frequency / 2), dim // 4, base=2, device="cpu") * math.pi
    sides = (torch.linspace(-1, 1, side, device="cpu") for side in (height, width))
    rows, columns = (torch.outer(side, scales).to(torch.get_default_device()) for side in sides)
    angle = torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), dim=-1)
    return angle.flatten(0, 1).repeat_interleave(2, dim=-1)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbours (x0, x1) -> (x0 cos0 - x1 sin0, x1 cos1 + x0 sin1): a rotation where both have the same angle."""
    exact = at_least_fp32(x)
    return torch.addcmul(exact * cos, quarter_turn(exact), sin).to(x.dtype)


class RotaryGrid(FullPrecisionBuffers):
    """Rotary tables of a clip's token grid: constants, outside of any state dict.

    Args:
        time: Frames.
        height: Rows of patches.
        width: Columns of patches.
        dim: Features of an attention head, a multiple of 4.
        layout: See `time_angles`.
    """

    time_cos: Tensor
    time_sin: Tensor
    space_cos: Tensor
    space_sin: Tensor

    def __init__(self, time: int, height: int, width: int, dim: int, layout: RopeLayout) -> None:
        super().__init__()
        angles = {"time": time_angles(time, dim, layout), "space": space_angles(height, width, dim)}
        for name, angle in angles.items():
            self.register_buffer(f"{name}_cos", angle.cos(), persistent=False)
            self.register_buffer(f"{name}_sin", angle.sin(), persistent=False)

    @property
    def time(self) -> Tables:
        """Cos and sin of the frames, to be broadcast over tokens (T, N, heads, dim)."""
        return self.time_cos[:, None, None], self.time_sin[:, None, None]

    @property
    def space(self) -> Tables:
        """Cos and sin of the patches, to be broadcast over tokens (N, H' W', heads, dim)."""
        return self.space_cos[:, None], self.space_sin[:, None]


class Attention(nn.Module):
    """Pre-norm softmax attention of tokens that lie sequence first, (L, N, C), or batch first, (N, L, C).

    Args:
        dim: Channels C.
        heads: Attention heads.
        dim_head: Channels of a head.
        sequence_first: How tokens lie. Heads and sequences of the first form have a common stride, by which many short
            sequences are read without a copy.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, sequence_first: bool) -> None:
        super().__init__()
        self.heads, self.sequence_first = heads, sequence_first
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, tokens: Tensor, rotary: Tables | None = None, readout: int | None = None) -> Tensor:
        """The residual branch.

        Args:
            tokens: (L, N, C) or (N, L, C).
            rotary: Cos and sin that turn q and k.
            readout: The one token of a sequence whose output is wanted (of (L, N, C)); None: all.

        Returns:
            The shape of `tokens`, or (1, N, C).
        """
        tokens = self.norm(tokens)
        asked = tokens if readout is None else tokens[readout, None]
        weights = self.to_qkv.weight.chunk(3)
        q, k, v = (
            F.linear(x, weight).unflatten(-1, (self.heads, -1))
            for x, weight in zip((asked, tokens, tokens), weights, strict=True)
        )
        if rotary is not None:
            q, k = turned(q, *rotary), turned(k, *rotary)
        if self.sequence_first:
            seen = attend(*(x.permute(1, 2, 0, 3) for x in (q, k, v))).permute(2, 0, 1, 3)
        else:
            seen = attend(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
        out: Tensor = self.to_out(seen.flatten(2))
        return out


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron, as a residual branch.

    Args:
        dim: Channels C.
        hidden: Hidden width.
        gated: GEGLU (Shazeer 2020): half of a layer of twice the width gates the other half. Otherwise GELU.
    """

    def __init__(self, dim: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * hidden if gated else hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        hidden = self.expand(self.norm(tokens))
        if self.gated:
            value, gate = hidden.chunk(2, dim=-1)
            hidden = value * F.gelu(gate)
        else:
            hidden = F.gelu(hidden)
        out: Tensor = self.contract(hidden)
        return out


class SpaceTimeLayer(nn.Module):
    """Divided attention (Bertasius et al. 2021, equations 10 and 11): over time, over space, then a feed-forward."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.time = Attention(dim, heads, dim_head, sequence_first=True)
        self.space = Attention(dim, heads, dim_head, sequence_first=False)
        self.feed_forward = FeedForward(dim, 4 * dim, gated=True)

    def forward(self, tokens: Tensor, rotary: RotaryGrid) -> Tensor:
        """(T, B, H' W', C) -> the same shape."""
        shape = tokens.shape
        tokens = tokens + self.time(tokens.flatten(1, 2), rotary.time).view(shape)
        tokens = tokens + self.space(tokens.flatten(0, 1), rotary.space).view(shape)
        return tokens + self.feed_forward(tokens)


class SpaceTimeTransformer(nn.Module):
    """TimeSformer without class token, learned positions and last norm: what encoder and decoder are made of.

    Args:
        dim: Channels C.
        depth: Layers.
        heads: Attention heads.
        dim_head: Channels of a head.
        checkpointing: Compute each layer's activations again in the backward pass instead of keeping them.
    """

    def __init__(self, dim: int, depth: int, heads: int, dim_head: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.layers = nn.ModuleList(SpaceTimeLayer(dim, heads, dim_head) for _ in range(depth))

    def forward(self, tokens: Tensor, rotary: RotaryGrid) -> Tensor:
        """(T, B, H' W', C) -> the same shape."""
        for layer in self.layers:
            tokens = recompute(layer, tokens, rotary) if self.checkpointing else layer(tokens, rotary)
        return tokens


class ProjectorLayer(nn.Module):
    """Attention along one axis, then a feed-forward."""

    def __init__(self, dim: int, heads: int, dim_head: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dim_head, sequence_first=True)
        self.feed_forward = FeedForward(dim, hidden, gated=False)

    def forward(self, tokens: Tensor, readout: int | None = None) -> Tensor:
        """(L, N, C) -> the same shape, or only the token at `readout`, (1, N, C)."""
        kept = tokens if readout is None else tokens[readout, None]
        kept = kept + self.attention(tokens, readout=readout)
        return kept + self.feed_forward(kept)


class Projector(nn.Module):
    """Reduces one axis of the token grid to one vector of a few numbers in (-1, 1) (section 3.1).

    A learned token is appended to each sequence, a transformer runs over it, and one output is kept.

    Args:
        dim: Channels C.
        out: Numbers of a latent vector.
        depth: Layers.
        heads: Attention heads; one has dim / (2 heads) channels.
        hidden: Width of the feed-forward.
        readout: Which output is kept. Quirk of the release: `first`, that of the first frame, row or column, although
            the token for it is at the end (`appended`). Released weights need `first`.
    """

    def __init__(
        self, dim: int, out: int, depth: int, heads: int, hidden: int, readout: Literal["first", "appended"]
    ) -> None:
        super().__init__()
        self.index = 0 if readout == "first" else -1
        self.token = nn.Parameter(torch.randn(dim))
        self.positions: nn.Parameter | None = None
        self.layers = nn.ModuleList(ProjectorLayer(dim, heads, dim // (2 * heads), hidden) for _ in range(depth))
        self.to_plane = nn.Linear(dim, out)

    def prepare(self, length: int) -> None:
        """Makes the table of positions of sequences of this length, N(0, 1)."""
        self.positions = nn.Parameter(torch.randn(length + 1, len(self.token), device=self.token.device))

    def forward(self, tokens: Tensor) -> Tensor:
        """(L, N, C) -> (N, out)."""
        assert self.positions is not None, "prepare() comes first"
        places = self.positions[:, None]
        appended = (self.token + places[-1:]).expand(-1, tokens.shape[1], -1)
        tokens = torch.cat((tokens + places[:-1], appended.to(tokens.dtype)))
        *layers, last = self.layers
        for layer in layers:
            tokens = layer(tokens)
        # of the last layer, nothing but the kept token's output is needed
        out: Tensor = torch.tanh(self.to_plane(last(tokens, self.index)[0]))
        return out
