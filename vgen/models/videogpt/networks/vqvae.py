"""VideoGPT's first stage: a VQ-VAE of 3D convolutions and axial attention (Yan et al. 2021, section 3.1)."""

import math

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.models.videogpt.networks.attention import AxialAttention
from vgen.models.videogpt.networks.convolutions import Axes, SameConv3d, SameConvTranspose3d
from vgen.nn.quantize import EMACodebook, Quantised

_HEADS = 2


def strides(downsample: Axes) -> list[Axes]:
    """Strides of the convolutions that halve (or double): each axis until it has its factor.

    Raises:
        UserError: A factor is no power of two.
    """
    exponents = [int(math.log2(factor)) if factor > 0 else -1 for factor in downsample]
    if any(exponent < 0 or 1 << exponent != factor for exponent, factor in zip(exponents, downsample, strict=True)):
        raise UserError(f"factors are powers of two, not {tuple(downsample)}", "network.downsample")
    layers = max(exponents)
    if not layers:
        raise UserError("nothing is compressed by 1x1x1", "network.downsample")
    t, h, w = exponents
    return [(1 + (t > i), 1 + (h > i), 1 + (w > i)) for i in range(layers)]


class ResidualBlock(nn.Module):
    """Bottleneck of convolutions with axial attention at its end, around which the input goes.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.layers = nn.Sequential(
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            SameConv3d(channels, inner, 3, bias=False),
            nn.BatchNorm3d(inner),
            nn.ReLU(),
            SameConv3d(inner, channels, 1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            AxialAttention(channels, _HEADS),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        return x + self.layers(x)


def _residual_stack(channels: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(layers)), nn.BatchNorm3d(channels), nn.ReLU())


class VQVAE(Configurable, nn.Module):
    """Clips to a grid of discrete codes, and back. Official: 21,141,619 parameters, and a codebook in buffers.

    Args:
        hidden: Channels of the convolutions.
        embedding_dim: Channels of a code.
        codes: Number of codes.
        res_layers: Residual blocks of encoder and decoder each.
        downsample: Factors of time, height and width, powers of two.
        channels: Colour channels.
        decay: Of the codebook's running means.
        restart_below: See `EMACodebook`.
    """

    def __init__(
        self,
        hidden: int = 240,
        embedding_dim: int = 256,
        codes: int = 2048,
        res_layers: int = 4,
        downsample: tuple[int, int, int] = (4, 4, 4),
        channels: int = 3,
        decay: float = 0.99,
        restart_below: float = 1.0,
    ) -> None:
        super().__init__()
        self.downsample: Axes = (downsample[0], downsample[1], downsample[2])
        self.channels = channels
        steps = strides(self.downsample)
        self.down = nn.ModuleList(
            SameConv3d(channels if i == 0 else hidden, hidden, 4, step) for i, step in enumerate(steps)
        )
        # The release takes the first layer's width where there is one layer, and fails.
        self.down_last = SameConv3d(hidden, hidden, 3)
        self.encoder_blocks = _residual_stack(hidden, res_layers)
        self.to_latent = SameConv3d(hidden, embedding_dim, 1)
        self.codebook = EMACodebook(codes, embedding_dim, decay, restart_below)
        self.from_latent = SameConv3d(embedding_dim, hidden, 1)
        self.decoder_blocks = _residual_stack(hidden, res_layers)
        last = len(steps) - 1
        self.up = nn.ModuleList(
            SameConvTranspose3d(hidden, channels if i == last else hidden, 4, step) for i, step in enumerate(steps)
        )

    def features(self, video: Tensor) -> Tensor:
        """What becomes the latent of clips: (B, hidden, t, h, w)."""
        x = video
        for layer in self.down:
            x = layer(x).relu()
        return self.encoder_blocks(self.down_last(x))  # type: ignore[no-any-return]

    def latent(self, video: Tensor) -> Tensor:
        """The latent before it is quantised, (B, embedding_dim, t, h, w)."""
        return self.to_latent(self.features(video))  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> Tensor:
        """Codes (B, embedding_dim, t, h, w) -> clips (B, C, T, H, W) about [-0.5, 0.5]."""
        x = self.decoder_blocks(self.from_latent(latent))
        for i, layer in enumerate(self.up):
            x = layer(x) if i == len(self.up) - 1 else layer(x).relu()
        return x

    def forward(self, video: Tensor) -> tuple[Tensor, Quantised]:
        """Reconstructs clips (B, C, T, H, W) in [-0.5, 0.5], and tells the codes in between."""
        quantised = self.codebook(self.latent(video))
        return self.decode(quantised.latent), quantised

    @torch.no_grad()
    def codes_of(self, video: Tensor) -> Tensor:
        """Numbers of the codes of clips, (B, t, h, w) int64."""
        latent = self.latent(video).movedim(1, -1).float()
        return self.codebook.nearest(latent.flatten(0, -2)).view(latent.shape[:-1])

    def from_codes(self, codes: Tensor) -> Tensor:
        """Clips of codes (B, t, h, w)."""
        found = self.codebook.lookup(codes).movedim(-1, 1)
        return self.decode(found.to(self.from_latent.conv.weight.dtype))

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Sides (t, h, w) of the codes of clips of this size.

        Raises:
            UserError: The factors do not divide it.
        """
        size = (frames, height, width)
        if any(length % factor for length, factor in zip(size, self.downsample, strict=True)):
            what = f"clips of {frames}x{height}x{width} (frames, height, width) cannot be divided by {self.downsample}"
            raise UserError(what, "network.downsample")
        t, h, w = (length // factor for length, factor in zip(size, self.downsample, strict=True))
        return t, h, w
