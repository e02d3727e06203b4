"""LPIPS (Zhang et al. 2018) of pairs of clips, by the authors' package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgen.metrics.detectors import recipe, registry
from vgen.metrics.detectors.base import Identity, full_precision, state_hash
from vgen.metrics.per_clip import PerClipMetric
from vgen.nn.lpips import LPIPSBackbone as Backbone
from vgen.nn.lpips import backbone_names, load_backbone, lpips_network
from vgen.weights.unpickle import read_official

LPIPSConvention = Literal["mean", "spatial"]


class LPIPSDistance(nn.Module):
    """The distance of pictures, on an ImageNet backbone whose file is found like a detector's.

    The linear heads are part of the `lpips` package.

    Args:
        net: Backbone.
        weights: torchvision's file of the backbone; None looks for it.
        random_init: The recipe's weights instead of a file; numbers are then called `lpips_random`.
        salt: Of the recipe.

    Raises:
        UserError: The backbone's file is missing or damaged.
    """

    def __init__(
        self, net: Backbone = "alex", weights: str | Path | None = None, random_init: bool = False, salt: str = ""
    ) -> None:
        super().__init__()
        file = None if random_init else registry.find(f"lpips_{net}", weights)
        self.network: Any = lpips_network(net)
        if file is None:
            own, names = self.network.state_dict(), backbone_names(self.network)
            filled = recipe.plain_network({f"{net}/{key}": own[key] for key in names}, salt)
            load_backbone(self.network, {name: filled[f"{net}/{key}"] for key, name in names.items()})
        else:
            load_backbone(self.network, read_official(file))
        self.net = net
        # of the parameters: the heads and the backbone are two files
        self.identity = Identity(f"lpips_{net}", "random" if random_init else "published", state_hash(self.network))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor, convention: LPIPSConvention = "mean", frames: int = 16) -> Tensor:
        """Distance of each pair of frames.

        Args:
            a: (B, C, T, H, W) in [0, 1]; grey is shown three times.
            b: The same shape.
            convention: `mean`: each layer's map is averaged (the package's default). `spatial`: the maps are enlarged
                to the picture and added first (common_metrics); differs in the fourth digit.
            frames: Pairs of frames in each pass.

        Returns:
            (B, T) float64.
        """
        pairs = [video.expand(-1, 3, -1, -1, -1).transpose(1, 2).flatten(0, 1) * 2 - 1 for video in (a, b)]
        self.network.spatial = convention == "spatial"
        found = []
        with full_precision(a.device):
            for x, y in zip(pairs[0].split(frames), pairs[1].split(frames), strict=True):
                found.append(self.network(x, y).double().flatten(1).mean(1))
        return torch.cat(found).view(a.shape[0], a.shape[2])

    @torch.no_grad()
    def per_layer(self, a: Tensor, b: Tensor) -> Tensor:
        """The share of each layer in the distance of pictures (N, 3, H, W) in [0, 1]: (N, layers)."""
        self.network.spatial = False
        return torch.stack([part.flatten() for part in self.network(a * 2 - 1, b * 2 - 1, retPerLayer=True)[1]], 1)


class LPIPS(PerClipMetric):
    """Mean LPIPS of pairs of clips.

    Args:
        distance: The network.
        convention: See `LPIPSDistance.forward`.
    """

    higher_is_better = False

    def __init__(self, distance: LPIPSDistance, convention: LPIPSConvention = "mean") -> None:
        super().__init__()
        self.distance, self.convention = distance, convention

    def update(self, made: Tensor, target: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds pairs of clips (B, C, T, H, W) in [0, 1], with the subject of each for the interval."""
        self.add(self.distance(made, target, self.convention).mean(1), groups)
