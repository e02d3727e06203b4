"""Encoders and decoders of single frames: DCGAN's and VGG's (Denton & Fergus 2018, section 4; released code).

They take clips (B, T, C, H, W) and treat every frame by itself. An encoder gives a vector and the features of each
level, fine to coarse, which the decoder of a frame sees beside its own.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.models.svg.networks.layers import Calls, ConvUnit, by_frame, initialised

Kind = Literal["dcgan", "vgg"]
_COARSEST = 4  # side of the features that become the vector
_WIDEST = 8  # channels of the widest level, in multiples of the first one's


def level_widths(side: int, width: int) -> list[int]:
    """Channels of each level: doubled with every halving of the side, up to 8 times the first.

    Raises:
        UserError: The side is no power of two from 8.
    """
    levels = (side // _COARSEST).bit_length() - 1
    if levels < 1 or _COARSEST << levels != side:
        raise UserError(f"SVG's frames have 8, 16, 32, 64, 128, ... pixels a side, not {side}", "data.init_args.size")
    return [width * min(1 << level, _WIDEST) for level in range(levels)]


def _layers(level: int) -> int:
    """Convolutions of a level of VGG."""
    return 2 if level < 2 else 3


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Encoder(nn.Module):
    """Frames to vectors.

    `dcgan`: each level halves the side by a 4x4 convolution with stride 2, and its features are those behind it. `vgg`:
    each level has 3x3 convolutions, and its features are those before they are halved by max pooling.

    Args:
        kind: Which of the two.
        side: Side of a frame in pixels.
        channels: Colour channels.
        width: Channels of the first level.
        dim: Size of the vector.
        calls: See `FrameNorm`.
    """

    def __init__(self, kind: Kind, side: int, channels: int, width: int, dim: int, calls: Calls = "once") -> None:
        super().__init__()
        self.kind = kind
        widths = level_widths(side, width)
        self.levels = nn.ModuleList()
        for level, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            if kind == "dcgan":
                convs: list[nn.Conv2d] = [nn.Conv2d(before, after, 4, 2, 1)]
            else:
                convs = [_conv3(before if i == 0 else after, after) for i in range(_layers(level))]
            self.levels.append(nn.Sequential(*(ConvUnit(conv, calls) for conv in convs)))
        self.head = ConvUnit(nn.Conv2d(widths[-1], dim, _COARSEST), calls, "tanh")

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T, C, H, W) in [0, 1] -> vectors (B, T, dim) in (-1, 1), and the features of each level."""
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
            if self.kind == "vgg":
                x = F.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
        return self.head(x)[..., 0, 0], features


class Decoder(nn.Module):
    """Vectors and features to frames; each level is behind the features of the encoder's of the same size.

    Args:
        kind: As the encoder's.
        side: Side of a frame in pixels.
        channels: Colour channels.
        width: Channels of the finest level.
        dim: Size of the vector.
        calls: See `FrameNorm`.
    """

    def __init__(self, kind: Kind, side: int, channels: int, width: int, dim: int, calls: Calls = "once") -> None:
        super().__init__()
        self.kind = kind
        widths = level_widths(side, width)
        self.foot = ConvUnit(nn.ConvTranspose2d(dim, widths[-1], _COARSEST), calls)
        self.levels = nn.ModuleList()
        for level in reversed(range(len(widths))):
            inputs, outputs = 2 * widths[level], widths[max(level - 1, 0)]
            if kind == "dcgan":
                convs: list[nn.Conv2d | nn.ConvTranspose2d] = [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
            else:
                inner = [widths[level]] * (_layers(level) - 1)
                sizes = [inputs, *inner, outputs]
                convs = [_conv3(a, b) for a, b in pairwise(sizes)]
            # The finest level ends in the picture itself.
            self.levels.append(nn.Sequential(*(ConvUnit(conv, calls) for conv in (convs if level else convs[:-1]))))
        last = nn.ConvTranspose2d(2 * width, channels, 4, 2, 1) if kind == "dcgan" else None
        self.last = initialised(last or nn.ConvTranspose2d(width, channels, 3, 1, 1))

    def forward(self, vector: Tensor, features: list[Tensor]) -> Tensor:
        """Frames (B, T, C, H, W) in (0, 1).

        Args:
            vector: (B, T, dim).
            features: Of each level of the encoder, fine to coarse, (B, T, ...).
        """
        x = self.foot(vector[..., None, None])
        for level, feature in zip(self.levels, reversed(features), strict=True):
            if self.kind == "vgg":
                x = F.interpolate(x.flatten(0, 1), scale_factor=2.0).unflatten(0, x.shape[:2])
            x = level(torch.cat((x, feature), dim=2))
        return by_frame(self.last, x).sigmoid()
