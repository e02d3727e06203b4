"""What the U-Nets of score-based models have in common: the levels, and the way down and up."""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vgen.models.score.networks.blocks import (
    NEARLY_ZERO,
    Activation,
    AttentionBlock,
    ConvResample,
    Resample,
    ResBlock,
    activate,
    group_norm,
    xavier_,
)
from vgen.nn.resample import Direction


class Combine(nn.Module):
    """A 1x1 convolution of the input pyramid, summed with or put beside the features.

    Args:
        in_channels: Channels of the pyramid.
        channels: Channels of the features.
        method: sum or cat.
    """

    def __init__(self, in_channels: int, channels: int, method: Literal["sum", "cat"]) -> None:
        super().__init__()
        self.method = method
        self.conv = xavier_(nn.Conv2d(in_channels, channels, 1))

    def forward(self, pyramid: Tensor, x: Tensor) -> Tensor:
        """(B, in_channels, H, W), (B, C, H, W) -> (B, C or 2C, H, W)."""
        h = self.conv(pyramid)
        return h + x if self.method == "sum" else torch.cat((h, x), dim=1)


class Head(nn.Module):
    """Norm, activation and convolution.

    Args:
        channels: Input channels.
        out_channels: Output channels.
        per_group: See `group_norm`.
        eps: Of the norm.
        activation: Non-linearity.
        gain: Of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        per_group: int = 4,
        eps: float = 1e-6,
        activation: Activation = "swish",
        gain: float = NEARLY_ZERO,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm = group_norm(channels, per_group, eps)
        self.conv = xavier_(nn.Conv2d(channels, out_channels, 3, padding=1), gain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out_channels, H, W)."""
        return self.conv(activate(self.norm(x), self.activation))


#: A residual block and, where there is one, the attention behind it.
Blocks = nn.ModuleList


class DownLevel(nn.Module):
    """Blocks of one resolution and the way to the next, made in the order in which score SDE numbers them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()  # of Blocks
        self.down: ResBlock | ConvResample | Resample | None = None
        self.pyramid: Combine | ConvResample | None = None


class UpLevel(nn.Module):
    """Blocks of one resolution on the way up, likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()  # of Blocks
        self.head: Head | None = None
        self.pyramid: ConvResample | None = None
        self.up: ResBlock | ConvResample | Resample | None = None


def run(block: nn.Module, x: Tensor, embedding: Tensor | None) -> Tensor:
    """Runs a block of a level, or what resamples."""
    if isinstance(block, Blocks):
        first, *attention = block
        x = first(x, embedding)
        for layer in attention:
            x = layer(x)
        return x
    return block(x, embedding) if isinstance(block, ResBlock) else block(x)


class LeveledUNet(nn.Module):
    """A U-Net of levels; what its blocks are is the subclass's.

    Attributes:
        skip_scale: Factor of the sum of features and pyramid.
        clips: Whether a sample is a clip; here it is an image.
    """

    skip_scale = 1.0
    clips = False

    def build(
        self,
        resolution: int,
        channels: int,
        out_channels: int,
        widths: Sequence[int],
        stem: int,
        num_blocks: int,
        attn_resolutions: Sequence[int],
        residual: Callable[[int, int], ResBlock],
        attention: Callable[[int], AttentionBlock],
        resample: Callable[[int, Direction], ResBlock | ConvResample | Resample],
        head: Callable[[int, int, float], Head],
        every_block: bool,
        taps: tuple[float, ...] | None = None,
        encoder: Literal["standard", "skip", "residual"] = "standard",
        decoder: Literal["standard", "skip", "residual"] = "standard",
        combine: Literal["sum", "cat"] = "sum",
    ) -> None:
        """Makes the layers.

        Args:
            resolution: Side of the images.
            channels: Image channels.
            out_channels: Output channels.
            widths: Of the levels.
            stem: Width of the first convolution.
            num_blocks: Residual blocks of a level on the way down; one more on the way up.
            attn_resolutions: Sides at which there is attention.
            residual: (in, out) -> residual block.
            attention: width -> attention.
            resample: (width, direction) -> what doubles or halves the size.
            head: (in, out, gain) -> norm, activation and convolution.
            every_block: Attention behind every block on the way up, or behind the last of a level.
            taps: FIR filter of the pyramids.
            encoder: What else goes down: nothing, or the image by 1x1 convolutions (skip) or strided ones (residual).
            decoder: What else goes up: nothing, or an image (skip) or features (residual).
            combine: How the image joins under encoder skip.
        """
        self.resolution, self.channels, self.out_channels = resolution, channels, out_channels

        def blocks(a: int, b: int, attended: bool) -> Blocks:
            return Blocks([residual(a, b), attention(b)] if attended else [residual(a, b)])

        self.conv_in = xavier_(nn.Conv2d(channels, stem, 3, padding=1))
        self.pyramid_down = Resample("down", taps) if encoder == "skip" else None
        self.down = nn.ModuleList()
        width, skips, beside = stem, [stem], channels
        for i, wanted in enumerate(widths):
            down = DownLevel()
            for _ in range(num_blocks):
                down.blocks.append(blocks(width, wanted, resolution >> i in attn_resolutions))
                width = wanted
                skips.append(width)
            if i < len(widths) - 1:
                down.down = resample(width, "down")
                if encoder == "skip":
                    down.pyramid = Combine(beside, width, combine)
                    width = 2 * width if combine == "cat" else width
                elif encoder == "residual":
                    down.pyramid = ConvResample(beside, width, "down", taps)
                    beside = width
                skips.append(width)
            self.down.append(down)
        self.middle = nn.ModuleList([blocks(width, width, True), blocks(width, width, False)])
        self.pyramid_up = Resample("up", taps) if decoder == "skip" else None
        self.up = nn.ModuleList()
        for i, wanted in reversed(list(enumerate(widths))):
            up = UpLevel()
            for j in range(num_blocks + 1):
                attended = resolution >> i in attn_resolutions and (every_block or j == num_blocks)
                up.blocks.append(blocks(width + skips.pop(), wanted, attended))
                width = wanted
            if decoder == "skip":
                up.head = head(width, out_channels, NEARLY_ZERO)
            elif decoder == "residual" and i == len(widths) - 1:
                up.head = head(width, width, 1.0)
            elif decoder == "residual":
                up.pyramid = ConvResample(beside, width, "up", taps)
            beside = width
            if i > 0:
                up.up = resample(width, "up")
            self.up.append(up)
        self.head = head(width, out_channels, NEARLY_ZERO) if decoder != "skip" else None

    def between(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """The way down and up: images (B, channels, H, W) and the embedding (B, E) -> (B, out_channels, H, W)."""
        pyramid = x
        x = self.conv_in(x)
        skips = [x]
        for down in cast(list[DownLevel], self.down):
            for block in down.blocks:
                x = run(block, x, embedding)
                skips.append(x)
            if down.down is None:
                continue
            x = run(down.down, x, embedding)
            if isinstance(down.pyramid, Combine):
                pyramid = cast(Resample, self.pyramid_down)(pyramid)
                x = down.pyramid(pyramid, x)
            elif down.pyramid is not None:
                x = pyramid = (down.pyramid(pyramid) + x) * self.skip_scale
            skips.append(x)
        for block in self.middle:
            x = run(block, x, embedding)
        risen: Tensor | None = None
        for up in cast(list[UpLevel], self.up):
            for block in up.blocks:
                x = run(block, torch.cat((x, skips.pop()), dim=1), embedding)
            if up.head is not None:
                own = up.head(x)
                risen = own if risen is None else cast(Resample, self.pyramid_up)(risen) + own
            elif up.pyramid is not None:
                x = risen = (up.pyramid(risen) + x) * self.skip_scale
            if up.up is not None:
                x = run(up.up, x, embedding)
        return cast(Tensor, risen) if self.head is None else self.head(x)


def dropped(label: Tensor, share: float, training: bool) -> Tensor:
    """One-hot classes (B, L), of which training drops a share: their rows become zero."""
    if not training or share == 0:
        return label
    return label * (torch.rand(len(label), 1, device=label.device) >= share).to(label.dtype)
