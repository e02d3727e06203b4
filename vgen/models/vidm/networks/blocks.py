"""Blocks of VIDM's U-Nets: residual blocks whose second normalisation knows diffusion step, frame and pixel."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend
from vgen.nn.init import zeroed
from vgen.nn.pointwise import pointwise
from vgen.nn.precision import at_least_fp32
from vgen.nn.resample import Direction, box_resample

GROUPS = 32


@dataclass(frozen=True)
class Position:
    """Where a feature map is: diffusion step and frame, as coordinates and as an embedding.

    Args:
        place: (B, 2) coordinates of diffusion step t and frame n, each in [-1, 1]; B = 1 for a whole batch.
        embedding: (B, E) embedding of t for adaptive group norm; None with PosGN.
        grids: Coordinates of the pixels by size, which all blocks of that size share.
    """

    place: Tensor
    embedding: Tensor | None = None
    grids: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def grid(self, height: int, width: int) -> Tensor:
        """Coordinates (h, w) of every pixel of a map, each on linspace(-1, 1): (2, HW), fp32."""
        if (height, width) not in self.grids:
            sides = (axis(torch.arange(side, device=self.place.device), side) for side in (height, width))
            self.grids[height, width] = torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1)
        return self.grids[height, width]


def axis(index: Tensor, steps: int) -> Tensor:
    """Coordinate of an index on linspace(-1, 1, steps), fp32; one step has coordinate -1."""
    return 2 * index.float() / max(steps - 1, 1) - 1


class PosGN(nn.Module):
    """Positional group norm: scale and shift of every pixel come from an MLP of its four coordinates.

    y = GN(x) (1 + alpha) + beta with (alpha, beta) = MLP(t, n, h, w), each coordinate on linspace(-1, 1). The paper
    writes alpha GN(x) + beta, which is the same family of functions: the last bias differs by one.

    The first layer's activation is a plain sine of the default initialisation (no SIREN).

    Args:
        channels: Channels C, a multiple of 32.
    """

    one: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.phase = nn.Linear(4, channels)
        self.hidden = nn.Linear(channels, 2 * channels)
        self.modulation = nn.Linear(2 * channels, 2 * channels)
        # of 1 + alpha; in the bias, it costs no pass over the map
        self.register_buffer("one", (torch.arange(2 * channels) < channels).float(), persistent=False)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """(B, C, H, W) -> the same shape. One position for the whole batch is worked out once."""
        scale, shift = self.scale_shift(position, *x.shape[2:]).chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), scale)

    def scale_shift(self, position: Position, height: int, width: int) -> Tensor:
        """1 + alpha, then beta: (B, 2C, H, W). The phases are a sum over axes: no map of all four is ever built."""
        place = position.place
        with torch.autocast(place.device.type, enabled=False):  # bf16 has 256 places between -1 and 1
            weight, bias = at_least_fp32(self.phase.weight), at_least_fp32(self.phase.bias)
            of_place, of_pixel = weight.split(2, dim=1)
            time = F.linear(place.to(weight), of_place, bias)
            waves = torch.sin(time[:, :, None] + of_pixel @ position.grid(height, width).to(weight))
        hidden = F.silu(pointwise(self.hidden.weight, waves.to(self.hidden.weight.dtype), self.hidden.bias))
        modulation = pointwise(self.modulation.weight, hidden, self.modulation.bias + self.one)
        return modulation.unflatten(2, (height, width))


class AdaGN(nn.Module):
    """Adaptive group norm (Dhariwal & Nichol 2021, section 3.1): scale and shift from the diffusion step alone.

    Args:
        channels: Channels C, a multiple of 32.
        embedding: Size of the embedding of the step.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.modulation = nn.Linear(embedding, 2 * channels)

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if position.embedding is None:
            raise ValueError("adaptive group norm needs an embedding of the diffusion step")
        scale, shift = self.modulation(F.silu(position.embedding))[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class PositionedConv(nn.Module):
    """PosGN or AdaGN, SiLU and a convolution that begins at zero: the second half of a residual block.

    Args:
        channels: Channels C.
        embedding: Size of the embedding for AdaGN; None for PosGN.
    """

    def __init__(self, channels: int, embedding: int | None = None) -> None:
        super().__init__()
        self.norm = PosGN(channels) if embedding is None else AdaGN(channels, embedding)
        self.conv = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return self.conv(F.silu(self.norm(x, position)))


class ResBlock(nn.Module):
    """Group norm, SiLU, convolution, then `PositionedConv`; resampling acts between SiLU and convolution.

    Args:
        channels: Input channels.
        out_channels: Output channels; with resampling the same as the input's.
        resample: Halve the size (2x2 mean) or double it (nearest) in both branches.
        embedding: See `PositionedConv`.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        resample: Direction | None = None,
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        out_channels = out_channels or channels
        self.resample = resample
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.out = PositionedConv(out_channels, embedding)
        self.skip = nn.Conv2d(channels, out_channels, 1) if out_channels != channels else nn.Identity()

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H', W')."""
        h = F.silu(self.norm(x))
        if self.resample is not None:
            h, x = box_resample(h, self.resample), box_resample(x, self.resample)
        return self.skip(x) + self.out(self.conv(h), position)


class SpatialAttention(nn.Module):
    """Residual softmax attention over the pixels of a frame.

    Args:
        channels: Channels C, a multiple of 32.
        heads: Attention heads. The projection's channels are heads first, then q, k and v, as in guided diffusion's
            legacy order.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        qkv = self.qkv(self.norm(x).flatten(2)).unflatten(1, (self.heads, 3, -1))  # (B, heads, 3, d, L)
        q, k, v = qkv.mT.unbind(2)
        seen = attend(q, k, v).mT.flatten(1, 2)
        return x + self.proj(seen).view_as(x)


class Downsample(nn.Module):
    """Halves the size by a strided convolution.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))."""
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles the size by nearest up-sampling and a convolution.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(box_resample(x, "up"))
