"""The network of score-based models of clips, ours: VDM's factorised 3D U-Net with the interface of ScoreUNet."""

from typing import Literal

import torch
from torch import Tensor

from vgen.configurable import Configurable
from vgen.models.score.networks.blocks import FourierEmbedding
from vgen.nn.unet3d import FactorisedUnet3D, SpatialAttention


class ScoreUNet3D(Configurable, FactorisedUnet3D):
    """Noisy clips and a number that says how noisy -> what the model predicts.

    Neither paper has it. Everything around the network stays: processes, preconditioning, samplers and likelihoods
    treat a clip as one sample of more dimensions.

    Args:
        channels: Channels of the clips.
        model_channels: Base width.
        channel_mult: Width of each level as a multiple.
        heads: Attention heads.
        head_channels: Channels of a temporal head.
        spatial_attention: `linear`, or `full` softmax attention over the pixels of a frame.
        attention_levels: Levels with attention, 0 the finest; None: all.
        groups: GroupNorm groups.
        dropout: In residual blocks.
        noise_embedding: fourier for noise levels (VE, EDM), positional for times (VP).
        fourier_scale: Standard deviation of the frequencies.
        label_dim: Classes, given one-hot; 0 for none.
        augment_dim: Size of EDM's augmentation labels; 0 for none.
        checkpointing: Compute activations of blocks again in the backward pass.
    """

    clips = True

    def __init__(
        self,
        channels: int = 3,
        model_channels: int = 64,
        channel_mult: tuple[int, ...] = (1, 2, 4, 8),
        heads: int = 8,
        head_channels: int = 32,
        spatial_attention: SpatialAttention = "linear",
        attention_levels: tuple[int, ...] | None = None,
        groups: int = 8,
        dropout: float = 0.1,
        noise_embedding: Literal["fourier", "positional"] = "fourier",
        fourier_scale: float = 1.0,
        label_dim: int = 0,
        augment_dim: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            model_channels,
            channels,
            {"head": channels},
            channel_mult,
            cond_dim=label_dim + augment_dim or None,
            null_condition="zeros",
            attn_heads=heads,
            attn_dim_head=head_channels,
            spatial_attention=spatial_attention,
            attention_levels=attention_levels,
            groups=groups,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        self.noise_embedding, self.label_dim, self.augment_dim = noise_embedding, label_dim, augment_dim
        if noise_embedding == "fourier":
            self.time_mlp[0] = FourierEmbedding(model_channels, fourier_scale)

    def forward(  # type: ignore[override]
        self, x: Tensor, noise: Tensor, label: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Runs the network.

        Args:
            x: Noisy clips (B, channels, T, H, W).
            noise: What the embedding is made of, (B,).
            label: One-hot classes (B, label_dim); None and a row of zeros are no class.
            augment: (B, augment_dim); None and zeros: not augmented.

        Returns:
            The shape of x.
        """
        if not self.has_cond:
            return super().forward(x, noise)
        parts = ((label, self.label_dim), (augment, self.augment_dim))
        given = [x.new_zeros(len(x), dim) if part is None else part.to(x.dtype) for part, dim in parts]
        return super().forward(x, noise, torch.cat(given, dim=1))
