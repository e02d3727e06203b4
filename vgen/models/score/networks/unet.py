"""The U-Net of score SDE: DDPM, DDPM++ and NCSN++ (Song et al. 2021, section 4.4 and appendix H).

EDM's SongUNet (Karras et al. 2022, table 7) is the same network with other widths; a few options are EDM's alone.
"""

import math
from typing import Literal

from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.models.score.networks.blocks import (
    Activation,
    AttentionBlock,
    ConvResample,
    FourierEmbedding,
    Resample,
    ResBlock,
    activate,
    xavier_,
)
from vgen.models.score.networks.levels import Head, LeveledUNet, dropped
from vgen.nn.embeddings import SinusoidalEmbedding
from vgen.nn.resample import Direction


class ScoreUNet(Configurable, LeveledUNet):
    """Noisy images and a number that says how noisy -> what the model predicts.

    NCSN++: fourier, encoder residual, taps (1, 3, 3, 1). DDPM++: positional, no taps. DDPM: also block ddpm,
    per_group 1 and no skip_rescale.

    Args:
        resolution: Side of the images, which says where attention is.
        channels: Image channels.
        out_channels: Output channels; None for as many.
        model_channels: Base width.
        channel_mult: Width of each level as a multiple.
        num_blocks: Residual blocks of a level; one more on the way up.
        attn_resolutions: Sides at which there is attention: behind each block on the way down, the last on the way up.
        dropout: Of the residual blocks.
        noise_embedding: fourier, positional, or none for a network that does not know the noise level.
        noise_channels: Size of that embedding as a multiple of the width; None is 2 for fourier, 1 for positional.
        fourier_scale: Standard deviation of the frequencies.
        block: biggan resamples inside residual blocks; ddpm with layers of their own.
        taps: FIR filter of the resampling; None for none.
        resample_with_conv: Convolution in those layers of their own.
        encoder: What else goes down: nothing, or the image by 1x1 convolutions (skip) or strided ones (residual).
        decoder: What else goes up: nothing, or an image (skip) or features (residual).
        combine: How the image joins under encoder skip.
        skip_rescale: Divide the sum of two branches by sqrt(2).
        per_group: Channels of a group in the norms, at least.
        activation: Non-linearity.
        label_dim: Classes, given one-hot; 0 for none.
        augment_dim: Size of EDM's augmentation labels; 0 for none.
        label_dropout: Share of training samples whose class is dropped.
    """

    def __init__(
        self,
        resolution: int,
        channels: int = 3,
        out_channels: int | None = None,
        model_channels: int = 128,
        channel_mult: tuple[int, ...] = (1, 2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        noise_embedding: Literal["fourier", "positional", "none"] = "fourier",
        noise_channels: int | None = None,
        fourier_scale: float = 16.0,
        block: Literal["biggan", "ddpm"] = "biggan",
        taps: tuple[float, ...] | None = (1, 3, 3, 1),
        resample_with_conv: bool = True,
        encoder: Literal["standard", "skip", "residual"] = "residual",
        decoder: Literal["standard", "skip", "residual"] = "standard",
        combine: Literal["sum", "cat"] = "sum",
        skip_rescale: bool = True,
        per_group: int = 4,
        activation: Activation = "swish",
        label_dim: int = 0,
        augment_dim: int = 0,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.noise_embedding, self.activation, self.label_dropout = noise_embedding, activation, label_dropout
        self.label_dim, self.augment_dim = label_dim, augment_dim
        self.skip_scale = math.sqrt(0.5) if skip_rescale else 1.0
        embedding = 4 * model_channels if noise_embedding != "none" else None

        def residual(a: int, b: int, direction: Direction | None = None) -> ResBlock:
            return ResBlock(
                a,
                b,
                embedding,
                direction,
                taps,
                per_group=per_group,
                skip_scale=self.skip_scale,
                dropout=dropout,
                activation=activation,
            )

        def resample(width: int, direction: Direction) -> ResBlock | ConvResample | Resample:
            if block == "biggan":
                return residual(width, width, direction)
            return ConvResample(width, width, direction, taps) if resample_with_conv else Resample(direction, taps)

        self._embed(model_channels, noise_channels, fourier_scale, label_dim, augment_dim)
        self.build(
            resolution,
            channels,
            out_channels or channels,
            [multiple * model_channels for multiple in channel_mult],
            model_channels,
            num_blocks,
            attn_resolutions,
            residual,
            lambda width: AttentionBlock(width, per_group=per_group, skip_scale=self.skip_scale),
            resample,
            lambda a, b, gain: Head(a, b, per_group, activation=activation, gain=gain),
            False,
            taps,
            encoder,
            decoder,
            combine,
        )

    def _embed(self, width: int, multiple: int | None, scale: float, label_dim: int, augment_dim: int) -> None:
        """Makes what tells the blocks the noise level and, in EDM, the class and the augmentation."""
        self.map_noise: nn.Module | None = None
        self.map_label: nn.Linear | None = None
        self.map_augment: nn.Module | None = None
        self.time = nn.ModuleList()
        if self.noise_embedding == "none":
            return
        fourier = self.noise_embedding == "fourier"
        size = width * (multiple or (2 if fourier else 1))
        self.map_noise = FourierEmbedding(size, scale) if fourier else SinusoidalEmbedding(size)
        self.map_label = nn.Linear(label_dim, size) if label_dim else None
        if self.map_label is not None:
            xavier_(self.map_label)
        self.map_augment = xavier_(nn.Linear(augment_dim, size, bias=False)) if augment_dim else None
        self.time.extend([xavier_(nn.Linear(size, 4 * width)), xavier_(nn.Linear(4 * width, 4 * width))])

    def embedding(self, noise: Tensor, label: Tensor | None, augment: Tensor | None) -> Tensor | None:
        """The activated embedding (B, 4 width) that all blocks read."""
        if self.map_noise is None:
            return None
        first, second = self.time
        x = self.map_noise(noise).to(first.weight.dtype)
        if self.map_label is not None and label is not None:
            label = dropped(label, self.label_dropout, self.training).to(x.dtype)
            x = x + self.map_label(label * math.sqrt(self.map_label.in_features))
        if self.map_augment is not None and augment is not None:
            x = x + self.map_augment(augment.to(x.dtype))
        return activate(second(activate(first(x), self.activation)), self.activation)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Runs the network.

        Args:
            x: Noisy images (B, channels, H, W).
            noise: What the embedding is made of, (B,): log sigma, 999 t, ... by the convention of the model.
            label: One-hot classes (B, label_dim); a row of zeros is no class.
            augment: (B, augment_dim).

        Returns:
            (B, out_channels, H, W).
        """
        return self.between(x, self.embedding(noise, label, augment))
