"""The ADM U-Net (Dhariwal & Nichol 2021) as EDM trains it for ImageNet-64 (Karras et al. 2022, table 7)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.models.score.networks.blocks import AttentionBlock, ResBlock
from vgen.models.score.networks.levels import Head, LeveledUNet, dropped
from vgen.nn.embeddings import TimestepEmbedding
from vgen.nn.init import zeroed
from vgen.nn.resample import Direction

_EPS = 1e-5


class ADM(Configurable, LeveledUNet):
    """Noisy images and a number that says how noisy -> what the model predicts; classes join the embedding late.

    Args:
        resolution: Side of the images, which says where attention is.
        channels: Image channels.
        out_channels: Output channels; None for as many.
        model_channels: Base width.
        channel_mult: Width of each level as a multiple.
        num_blocks: Residual blocks of a level; one more on the way up.
        attn_resolutions: Sides at which there is attention behind every block.
        head_channels: Channels of an attention head.
        dropout: Of the residual blocks.
        label_dim: Classes, given one-hot; 0 for none.
        augment_dim: Size of EDM's augmentation labels; 0 for none.
        label_dropout: Share of training samples whose class is dropped.
    """

    def __init__(
        self,
        resolution: int,
        channels: int = 3,
        out_channels: int | None = None,
        model_channels: int = 192,
        channel_mult: tuple[int, ...] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: tuple[int, ...] = (32, 16, 8),
        head_channels: int = 64,
        dropout: float = 0.1,
        label_dim: int = 0,
        augment_dim: int = 0,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_dropout, self.label_dim, self.augment_dim = label_dropout, label_dim, augment_dim
        embedding = 4 * model_channels
        widths = [multiple * model_channels for multiple in channel_mult]

        def residual(a: int, b: int, direction: Direction | None = None) -> ResBlock:
            return ResBlock(a, b, embedding, direction, project=False, adaptive_scale=True, eps=_EPS, dropout=dropout)

        self.map_noise = TimestepEmbedding(model_channels)
        self.map_augment = nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.time = nn.ModuleList([nn.Linear(model_channels, embedding), nn.Linear(embedding, embedding)])
        self.map_label = nn.Linear(label_dim, embedding, bias=False) if label_dim else None
        self.build(
            resolution,
            channels,
            out_channels or channels,
            widths,
            widths[0],
            num_blocks,
            attn_resolutions,
            residual,
            lambda width: AttentionBlock(width, width // head_channels, eps=_EPS),
            lambda width, direction: residual(width, width, direction),
            lambda a, b, gain: Head(a, b, eps=_EPS, gain=gain),
            every_block=True,
        )
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Torch's own initial values, but zero for what ends a branch or joins the embedding (as the official code)."""
        ends: list[nn.Module | None] = [self.map_augment]
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
            elif isinstance(module, ResBlock):
                ends.append(module.conv1)
            elif isinstance(module, AttentionBlock):
                ends.append(module.proj)
            elif isinstance(module, Head):
                ends.append(module.conv)
        for end in ends:
            if end is not None:
                zeroed(end)
        if self.map_label is not None:
            nn.init.normal_(self.map_label.weight)

    def embedding(self, noise: Tensor, label: Tensor | None, augment: Tensor | None) -> Tensor:
        """The activated embedding (B, 4 width) that all blocks read."""
        first, second = self.time
        x = self.map_noise(noise).to(first.weight.dtype)
        if self.map_augment is not None and augment is not None:
            x = x + self.map_augment(augment.to(x.dtype))
        x = second(F.silu(first(x)))
        if self.map_label is not None and label is not None:
            x = x + self.map_label(dropped(label, self.label_dropout, self.training).to(x.dtype))
        return F.silu(x)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Runs the network; see `ScoreUNet.forward`."""
        return self.between(x, self.embedding(noise, label, augment))
