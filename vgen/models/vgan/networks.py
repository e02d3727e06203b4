"""VGAN's networks: a moving foreground, its mask, a background that stands still, and a discriminator of clips."""

from typing import Literal

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.nn.dcgan import Down, Up, doubling, sixteenth
from vgen.video import ClipSpec

Streams = Literal["one", "two"]
_WIDTHS = (8, 4, 2, 1)
_JUDGE_EPS = 1e-3  # Torch7's default for the norms of discriminator and encoder


def compose(foreground: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """Clips m f + (1 - m) b (equation 2): the mask is of all colours, the background of all frames.

    Args:
        foreground: (B, C, T, H, W).
        mask: (B, 1, T, H, W) in [0, 1].
        background: (B, C, H, W).
    """
    still = background[:, :, None]
    return still + mask * (foreground - still)


class VideoGenerator(Configurable, nn.Module):
    """Makes a clip of two streams, or of the foreground alone (section 3.1).

    The foreground's first map has a 16th of each of the clip's sides, and so for the background. `prepare` makes the
    layers. Official at 32 frames of 64x64: 16,245,383 parameters, of one stream 12,663,619.

    Args:
        code: Size of the code; 100.
        channels: Width in front of the last layers; those before are 8, 4 and 2 times as wide.
        streams: `two`: foreground, mask and background; `one`: the foreground is the clip.
    """

    def __init__(self, code: int = 100, channels: int = 64, streams: Streams = "two") -> None:
        super().__init__()
        self.code, self.channels, self.streams = code, channels, streams

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Frames or sides are no multiples of 16.
        """
        widths = [factor * self.channels for factor in _WIDTHS]
        inputs, colours = [self.code, *widths], clip_spec.channels
        cube, square = sixteenth(clip_spec, time=True), sixteenth(clip_spec)
        self.trunk = nn.Sequential(
            *(Up(inputs[i], width, 3, cube if i == 0 else None) for i, width in enumerate(widths))
        )
        self.to_foreground = doubling(widths[-1], colours, 3)
        if self.streams == "two":
            self.to_mask = doubling(widths[-1], 1, 3)
            layers = (Up(inputs[i], width, 2, square if i == 0 else None) for i, width in enumerate(widths))
            self.background = nn.Sequential(*layers, doubling(widths[-1], colours, 2))
        initialise(self)

    def forward(self, code: Tensor) -> dict[str, Tensor]:
        """Makes clips of codes (n, code).

        Returns:
            `video` (n, C, T, H, W) in [-1, 1] and, of two streams, `foreground`, `mask` (n, 1, T, H, W) in [0, 1] and
            `background` (n, C, H, W).
        """
        x = self.trunk(code[:, :, None, None, None])
        foreground = torch.tanh(self.to_foreground(x))
        if self.streams == "one":
            return {"video": foreground}
        background = torch.tanh(self.background(code[:, :, None, None]))
        return _scene(foreground, torch.sigmoid(self.to_mask(x)), background)


class FutureGenerator(Configurable, nn.Module):
    """Makes the clip that follows a picture (section 3.4): its code is a map of the picture, without noise.

    `prepare` makes the layers. Official at 32 frames of 64x64: 68,216,455 parameters.

    Args:
        channels: Width in front of the last layers, and behind the encoder's first; 128.
    """

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.channels = channels

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Frames or sides are no multiples of 16.
        """
        time, *_ = sixteenth(clip_spec, time=True)
        widths, colours = [factor * self.channels for factor in _WIDTHS], clip_spec.channels
        inner = [colours, *reversed(widths)]
        self.encoder = nn.Sequential(
            *(Down(inner[i], inner[i + 1], 2, norm=i > 0, eps=_JUDGE_EPS, slope=0.0) for i in range(4))
        )
        lifted = Up(widths[0], widths[0], 3, (time, 1, 1))
        self.trunk = nn.Sequential(lifted, *(Up(widths[i], widths[i + 1], 3) for i in range(3)))
        self.to_foreground, self.to_mask = doubling(widths[-1], colours, 3), doubling(widths[-1], 1, 3)
        layers = (Up(widths[i], widths[i + 1], 2) for i in range(3))
        self.background = nn.Sequential(*layers, doubling(widths[-1], colours, 2))
        initialise(self)

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        """Makes clips of pictures (n, C, H, W) in [-1, 1]; see `VideoGenerator.forward`."""
        code = self.encoder(picture)
        x = self.trunk(code[:, :, None])
        mask = torch.sigmoid(self.to_mask(x))
        return _scene(torch.tanh(self.to_foreground(x)), mask, torch.tanh(self.background(code)))


def _scene(foreground: Tensor, mask: Tensor, background: Tensor) -> dict[str, Tensor]:
    video = compose(foreground, mask, background)
    return {"video": video, "foreground": foreground, "mask": mask, "background": background}


class Discriminator(Configurable, nn.Module):
    """Says of clips how real and how generated they are: two logits (section 3.2).

    `prepare` makes the layers. Official at 32 frames of 64x64: 11,057,858 parameters, of the conditional one, which is
    twice as wide, 44,135,810.

    Args:
        channels: Width of the first layer; it doubles. 64, or 128 for `FutureGenerator`.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Frames or sides are no multiples of 16.
        """
        widths = [clip_spec.channels, *(self.channels * 2**i for i in range(4))]
        self.levels = nn.Sequential(*(Down(widths[i], widths[i + 1], 3, norm=i > 0, eps=_JUDGE_EPS) for i in range(4)))
        self.to_logits = nn.Conv3d(widths[-1], 2, sixteenth(clip_spec, time=True))  # type: ignore[arg-type]
        initialise(self)

    def forward(self, video: Tensor) -> Tensor:
        """Logits (N, 2), real first, of clips (N, C, T, H, W) in [-1, 1]."""
        return self.to_logits(self.levels(video)).flatten(1)  # type: ignore[no-any-return]


def initialise(network: nn.Module) -> None:
    """Initial weights as released: convolutions N(0, 0.01), scales of norms N(1, 0.02), nothing added."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            nn.init.normal_(module.weight, 0.0, 0.01)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
