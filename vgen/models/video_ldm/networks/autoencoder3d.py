"""LVDM's 3D auto-encoder (He et al. 2022, section 3.1), whose convolutions are those of TATS; the release's names."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable

Triple = tuple[int, int, int]
Padding = Literal["replicate", "constant", "reflect", "circular"]
NormType = Literal["group", "batch"]


def _same(kernel: int, stride: Triple) -> tuple[int, ...]:
    """Padding under which the output has 1/stride of the input's size; the front gets what is odd."""
    total = [kernel - step for step in reversed(stride)]  # F.pad begins with the last dimension
    return tuple(side for pad in total for side in (pad // 2 + pad % 2, pad // 2))


class SamePadConv3d(nn.Module):
    """Convolution of an input that is padded to divide evenly.

    Args:
        channels: Input channels.
        channels_out: Output channels.
        kernel: Side of the cubic kernel.
        stride: In time, height and width.
        padding: How the input is padded.
    """

    def __init__(
        self, channels: int, channels_out: int, kernel: int, stride: Triple = (1, 1, 1), padding: Padding = "replicate"
    ) -> None:
        super().__init__()
        self.pad, self.mode = _same(kernel, stride), padding
        self.conv = nn.Conv3d(channels, channels_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, channels_out, T/stride, ...)."""
        return self.conv(F.pad(x, self.pad, mode=self.mode) if any(self.pad) else x)


class SamePadConvTranspose3d(nn.Module):
    """Transposed convolution whose output is the input times its stride; arguments as in `SamePadConv3d`."""

    def __init__(self, channels: int, channels_out: int, kernel: int, stride: Triple) -> None:
        super().__init__()
        self.pad = _same(kernel, stride)
        self.convt = nn.ConvTranspose3d(channels, channels_out, kernel, stride, padding=kernel - 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, channels_out, T x stride, ...)."""
        return self.convt(F.pad(x, self.pad, mode="replicate"))


def _norm(channels: int, kind: NormType) -> nn.Module:
    return nn.GroupNorm(32, channels, eps=1e-6) if kind == "group" else nn.BatchNorm3d(channels)


class _ResBlock(nn.Module):
    def __init__(self, channels: int, norm: NormType) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels, norm), _norm(channels, norm)
        self.conv1, self.conv2 = SamePadConv3d(channels, channels, 3), SamePadConv3d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


def _strides(factors: Triple) -> list[Triple]:
    """Stride of each stage: an axis is halved in the first log2(factor) stages."""
    halvings = [factor.bit_length() - 1 for factor in factors]
    return [tuple(2 if stage < n else 1 for n in halvings) for stage in range(max(halvings))]  # type: ignore[misc]


class Encoder(nn.Module):
    """Video to moments of the latent; arguments as in `Autoencoder3D`."""

    def __init__(
        self, n_hiddens: int, downsample: Triple, z_channels: int, channels: int, norm: NormType, padding: Padding
    ) -> None:
        super().__init__()
        self.conv_first = SamePadConv3d(channels, n_hiddens, 3, padding=padding)
        self.conv_blocks = nn.ModuleList()
        width = n_hiddens
        for stride in _strides(downsample):
            down, width = SamePadConv3d(width, 2 * width, 4, stride, padding), 2 * width
            self.conv_blocks.append(nn.ModuleDict({"down": down, "res": _ResBlock(width, norm)}))
        last = SamePadConv3d(width, 2 * z_channels, 3, padding=padding)
        self.final_block = nn.Sequential(_norm(width, norm), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, 2 z_channels, T', h, w)."""
        x = self.conv_first(x)
        for block in self.conv_blocks:
            x = block["res"](block["down"](x))  # type: ignore[index, operator]
        return self.final_block(x)


class Decoder(nn.Module):
    """Latent to video; arguments as in `Autoencoder3D`."""

    def __init__(self, n_hiddens: int, upsample: Triple, z_channels: int, channels: int, norm: NormType) -> None:
        super().__init__()
        self.conv_blocks = nn.ModuleList()
        strides = _strides(upsample)
        width = z_channels
        for stage, stride in enumerate(strides):
            wide = n_hiddens * 2 ** (len(strides) - stage)
            up, width = SamePadConvTranspose3d(width, wide, 4, stride), wide
            blocks = {"up": up, "res1": _ResBlock(width, norm), "res2": _ResBlock(width, norm)}
            self.conv_blocks.append(nn.ModuleDict(blocks))
        self.conv_out = SamePadConv3d(width, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, z_channels, T', h, w) -> (B, C, T, H, W)."""
        for block in self.conv_blocks:
            x = block["res2"](block["res1"](block["up"](x)))  # type: ignore[index, operator]
        return self.conv_out(x)


class Autoencoder3D(Configurable, nn.Module):
    """Compresses a clip in time and space to a Gaussian latent.

    Args:
        n_hiddens: Base width; twice that must be a multiple of 32.
        downsample: Factors in time, height and width, powers of two; released: 4, 8, 8.
        upsample: Those of the decoder; None: the same.
        z_channels: Channels between encoder and latent.
        embed_dim: Channels of the latent.
        image_channel: Channels of the video.
        norm_type: `group` (32 groups) or `batch`.
        padding_type: Of the encoder's convolutions outside the residual blocks.
    """

    def __init__(
        self,
        n_hiddens: int = 32,
        downsample: tuple[int, int, int] = (4, 8, 8),
        upsample: tuple[int, int, int] | None = None,
        z_channels: int = 4,
        embed_dim: int = 4,
        image_channel: int = 3,
        norm_type: NormType = "group",
        padding_type: Padding = "replicate",
    ) -> None:
        super().__init__()
        downsample = (downsample[0], downsample[1], downsample[2])
        for factor in (*downsample, *(upsample or ())):
            if factor < 1 or factor & (factor - 1):
                raise ValueError(f"factors of compression are powers of two, not {factor}")
        self.channels, self.latent_channels, self.factors = image_channel, embed_dim, downsample
        self.encoder = Encoder(n_hiddens, downsample, z_channels, image_channel, norm_type, padding_type)
        up = downsample if upsample is None else (upsample[0], upsample[1], upsample[2])
        self.decoder = Decoder(n_hiddens, up, z_channels, image_channel, norm_type)
        self.quant_conv = SamePadConv3d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = SamePadConv3d(embed_dim, z_channels, 1)

    @property
    def last_weight(self) -> Tensor:
        """Weights of the decoder's last layer."""
        return self.decoder.conv_out.conv.weight

    def encode(self, video: Tensor) -> Tensor:
        """Mean and log variance of the latent, (B, C, T, H, W) in [-1, 1] -> (B, 2 embed_dim, T', h, w)."""
        moments: Tensor = self.quant_conv(self.encoder(video))
        return moments

    def decode(self, z: Tensor) -> Tensor:
        """(B, embed_dim, T', h, w) -> (B, C, T, H, W)."""
        video: Tensor = self.decoder(self.post_quant_conv(z))
        return video
