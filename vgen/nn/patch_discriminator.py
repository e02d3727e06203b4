"""PatchGAN discriminators of frames and of clips (Isola et al. 2017), for the adversarial phase of autoencoders."""

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable

_WIDEST = 512


class PatchBlock(nn.Module):
    """Convolution of kernel 4; in between, BatchNorm and a leaky ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        dims: Literal[2, 3],
        padding: int,
        norm: bool,
        bias: bool,
        last: bool,
    ) -> None:
        super().__init__()
        conv, batch_norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.last = last
        self.conv = conv(inputs, outputs, 4, stride=stride, padding=padding, bias=bias)
        self.norm = batch_norm(outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, ...) -> (N, outputs, ...)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.last else F.leaky_relu(x, 0.2)


class PatchDiscriminator(Configurable, nn.Module):
    """Judges overlapping patches of frames (dims 2) or clips (dims 3).

    `layers` blocks of stride 2 on every axis, one of stride 1, and a last one to a single channel; widths double up to
    512. Convolutions begin with N(0, 0.02), norms with N(1, 0.02). The defaults are PVDM's (2,766,529 and 11,057,857
    parameters), whose norms are synchronised under several processes: `trainer.sync_batchnorm: true`. Latent
    diffusion's has padding 1 and no biases in front of norms (2,765,633).

    Args:
        dims: 2 or 3.
        channels: Width of the first block.
        layers: Blocks of stride 2.
        num_channels: Colour channels.
        padding: Of the convolutions.
        norm_bias: Convolutions in front of a norm have biases, too.
    """

    def __init__(
        self,
        dims: Literal[2, 3],
        channels: int = 64,
        layers: int = 3,
        num_channels: int = 3,
        padding: int = 2,
        norm_bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        widths = [num_channels, channels]
        for _ in range(layers):
            widths.append(min(2 * widths[-1], _WIDEST))
        widths.append(1)
        self.blocks = nn.ModuleList(
            PatchBlock(
                inputs,
                outputs,
                stride=2 if index < layers else 1,
                dims=dims,
                padding=padding,
                norm=0 < index <= layers,
                bias=norm_bias or not 0 < index <= layers,
                last=index > layers,
            )
            for index, (inputs, outputs) in enumerate(pairwise(widths))
        )
        for block in self.blocks:
            nn.init.normal_(block.conv.weight, 0.0, 0.02)  # type: ignore[union-attr, arg-type]
            if block.norm is not None:
                nn.init.normal_(block.norm.weight, 1.0, 0.02)  # type: ignore[union-attr, arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judges (N, C, H, W) or (N, C, T, H, W) in [-1, 1].

        Returns:
            Logits (N, 1, ...), one for each patch, and the features of all blocks before, for feature matching.
        """
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features[-1], features[:-1]
