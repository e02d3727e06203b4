"""LPIPS as a loss (Zhang et al. 2018): on VGG16, with the authors' linear heads."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.losses.backbone import read_backbone
from vgen.nn.lpips import backbone_names, load_backbone, lpips_network
from vgen.nn.precision import at_least_fp32

VGG16_FILE = "vgg16-397923af.pth"
_WHAT = "VGG16 weights for LPIPS"


class LPIPS(Configurable, nn.Module):
    """Mean distance of pairs of pictures; no gradient flows to the target.

    Args:
        weights: File with torchvision's VGG16 state dict; None looks into torch's hub cache.
        random_init: Fixed random backbone weights instead of a file. For tests and tiny experiments: such a loss
            compares random features.
    """

    def __init__(self, weights: str | None = None, random_init: bool = False) -> None:
        super().__init__()
        state = None if random_init else read_backbone(weights, VGG16_FILE, _WHAT, "`perceptual: null`")
        self.network: Any = lpips_network("vgg")
        load_backbone(self.network, _random(self.network) if state is None else state)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "LPIPS":
        """Stays in eval mode: the linear heads have dropout in front of them."""
        return super().train(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Two (N, C, H, W) in [-1, 1] -> scalar, fp32; grey is shown three times. Sides of at least 16 pixels."""
        pair = [at_least_fp32(x).expand(-1, 3, -1, -1) for x in (prediction, target.detach())]
        distance: Tensor = self.network(*pair)
        return at_least_fp32(distance).mean()


def _random(network: Any) -> dict[str, Tensor]:
    """He-normal weights from a generator of their own: the same in every run, as no checkpoint stores them."""
    generator, own = torch.Generator().manual_seed(16), network.state_dict()
    state = {}
    for key, name in backbone_names(network).items():
        shape = own[key].shape
        spread = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.0
        state[name] = torch.randn(shape, generator=generator) * spread
    return state
