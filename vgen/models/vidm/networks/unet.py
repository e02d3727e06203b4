"""VIDM's 2D U-Net and its encoder: ADM's layout with positional group norm (VIDM section 3.2; report section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.models.vidm.networks.blocks import (
    GROUPS,
    Downsample,
    Position,
    ResBlock,
    SpatialAttention,
    Upsample,
    axis,
)
from vgen.nn.embeddings import TimestepEmbedding
from vgen.nn.init import zeroed
from vgen.nn.resample import Direction


@dataclass(frozen=True)
class Layout:
    """Widths, depths and positions of a U-Net; the defaults are the released motion generator's.

    Args:
        model_channels: Base width, a multiple of 32.
        num_res_blocks: Residual blocks of a level; one more on the way up.
        attention_resolutions: Down-sampling factors with attention behind each residual block.
        channel_mult: Width of each level as a multiple of `model_channels`.
        num_heads: Attention heads, where `num_head_channels` is None.
        num_head_channels: Channels of a head, which then set their number.
        resblock_updown: Resample by a residual block; otherwise by a convolution.
        diffusion_timesteps: Steps T that the coordinate t runs over.
        video_timesteps: Frames V that the coordinate n runs over. Trained with 128; the released generation script
            has 64, which doubles the speed of n.
        position: posgn, or adagn: ADM's norm, which sees the diffusion step alone.
    """

    model_channels: int = 128
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_heads: int = 1
    num_head_channels: int | None = 64
    resblock_updown: bool = True
    diffusion_timesteps: int = 1000
    video_timesteps: int = 128
    position: Literal["posgn", "adagn"] = "posgn"

    @property
    def embedding(self) -> int | None:
        """Size of the step's embedding under adagn."""
        return 4 * self.model_channels if self.position == "adagn" else None

    def attention(self, channels: int) -> SpatialAttention:
        """Attention over `channels` with the configured heads."""
        return SpatialAttention(
            channels, channels // self.num_head_channels if self.num_head_channels else self.num_heads
        )

    def resample(self, channels: int, direction: Direction) -> nn.Module:
        """The layer that halves or doubles the size."""
        if self.resblock_updown:
            return ResBlock(channels, resample=direction, embedding=self.embedding)
        return Downsample(channels) if direction == "down" else Upsample(channels)


class Stack(nn.ModuleList):
    """Layers that run one after the other; residual blocks are told the position."""

    def forward(self, x: Tensor, position: Position) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        for layer in self:
            x = layer(x, position) if isinstance(layer, ResBlock) else layer(x)
        return x


class Positions(nn.Module):
    """Turns diffusion steps and frames into what the blocks read.

    Args:
        layout: Lengths of the axes, and the kind of position.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.steps, self.frames = layout.diffusion_timesteps, layout.video_timesteps
        self.mlp: nn.Sequential | None = None
        if layout.embedding is not None:
            self.mlp = nn.Sequential(
                TimestepEmbedding(layout.model_channels),
                nn.Linear(layout.model_channels, layout.embedding),
                nn.SiLU(),
                nn.Linear(layout.embedding, layout.embedding),
            )

    def forward(self, t: Tensor, n: Tensor) -> Position:
        """Diffusion steps t and frames n, counted from 0, each (B,), or (1,) for the whole batch.

        t is the step of the training schedule, also where sampling leaves steps out.
        """
        place = torch.broadcast_tensors(axis(t, self.steps), axis(n, self.frames))
        if self.mlp is None:
            return Position(torch.stack(place, dim=1))
        embedding = self.mlp[0](t).to(self.mlp[1].weight.dtype)
        return Position(torch.stack(place, dim=1), self.mlp[1:](embedding))


def input_blocks(in_channels: int, layout: Layout) -> tuple[nn.ModuleList, list[int]]:
    """The down path and the channels behind each of its blocks."""
    channels, factor = layout.model_channels, 1
    blocks = nn.ModuleList([Stack([nn.Conv2d(in_channels, channels, 3, padding=1)])])
    behind = [channels]
    for level, multiple in enumerate(layout.channel_mult):
        width = layout.model_channels * multiple
        for _ in range(layout.num_res_blocks):
            layers: list[nn.Module] = [ResBlock(channels, width, embedding=layout.embedding)]
            if factor in layout.attention_resolutions:
                layers.append(layout.attention(width))
            blocks.append(Stack(layers))
            channels = width
            behind.append(channels)
        if level < len(layout.channel_mult) - 1:
            blocks.append(Stack([layout.resample(channels, "down")]))
            behind.append(channels)
            factor *= 2
    return blocks, behind


class Encoder2d(nn.Module):
    """The down path alone, of which every block's feature map is wanted.

    Args:
        in_channels: Image channels.
        layout: Widths and depths.
    """

    def __init__(self, in_channels: int, layout: Layout) -> None:
        super().__init__()
        self.positions = Positions(layout)
        self.input_blocks, _ = input_blocks(in_channels, layout)

    def forward(self, x: Tensor, t: Tensor, n: Tensor) -> list[Tensor]:
        """Feature maps behind every block, for an image (B, C, H, W) and positions as in `Positions.forward`."""
        position, maps = self.positions(t, n), []
        for block in self.input_blocks:
            x = block(x, position)
            maps.append(x)
        return maps


class UNet2d(nn.Module):
    """The denoiser of a frame, whose down path can be mixed with another encoder's feature maps.

    Args:
        in_channels: Channels of the noisy frame and of what is concatenated to it.
        out_channels: Channels of eps, and as many again where the variance is learned.
        layout: Widths and depths.
    """

    def __init__(self, in_channels: int, out_channels: int, layout: Layout) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.positions = Positions(layout)
        self.input_blocks, skips = input_blocks(in_channels, layout)
        channels, embedding = skips[-1], layout.embedding
        self.middle_block = Stack(
            [
                ResBlock(channels, embedding=embedding),
                layout.attention(channels),
                ResBlock(channels, embedding=embedding),
            ]
        )
        self.output_blocks = nn.ModuleList()
        factor = 2 ** (len(layout.channel_mult) - 1)
        for level, multiple in reversed(list(enumerate(layout.channel_mult))):
            width = layout.model_channels * multiple
            for i in range(layout.num_res_blocks + 1):
                layers: list[nn.Module] = [ResBlock(channels + skips.pop(), width, embedding=embedding)]
                if factor in layout.attention_resolutions:
                    layers.append(layout.attention(width))
                if level > 0 and i == layout.num_res_blocks:
                    layers.append(layout.resample(width, "up"))
                    factor //= 2
                self.output_blocks.append(Stack(layers))
                channels = width
        self.out_norm = nn.GroupNorm(GROUPS, channels)
        self.out_conv = zeroed(nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(
        self, x: Tensor, t: Tensor, n: Tensor, residuals: Sequence[Tensor] | None = None, scale: float = 1.0
    ) -> Tensor:
        """Denoises a batch of frames.

        Args:
            x: (B, in_channels, H, W).
            t: Diffusion steps, (B,) or (1,); see `Positions.forward`.
            n: Frames, (B,) or (1,).
            residuals: Feature maps of `Encoder2d`: behind input block i the state becomes residuals[i] + scale U_i(h),
                and that is also what the up path is given.
            scale: Of the denoiser's own blocks in that sum.

        Returns:
            (B, out_channels, H, W).
        """
        position, skips = self.positions(t, n), []
        for i, block in enumerate(self.input_blocks):
            x = block(x, position)
            if residuals is not None:
                x = torch.add(residuals[i], x, alpha=scale)
            skips.append(x)
        x = self.middle_block(x, position)
        for block in self.output_blocks:
            x = block(torch.cat((x, skips.pop()), dim=1), position)
        return self.out_conv(F.silu(self.out_norm(x)))
