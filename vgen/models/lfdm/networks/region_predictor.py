"""Regions of a frame: where the parts are and how they are turned and stretched (MRAA sections 3.1-3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.models.lfdm.networks.blocks import Hourglass, fast_layout
from vgen.nn.antialias import AntiAliasDownsample
from vgen.nn.geometry import principal_axes
from vgen.nn.precision import at_least_fp32
from vgen.nn.warp import coordinate_grid

RegionParams = dict[str, Tensor]


class RegionPredictor(nn.Module):
    """Predicts K soft regions and, for each, its centre, covariance and affine frame.

    Args:
        block_expansion: Base width of the hourglass.
        num_regions: Regions K.
        num_channels: Image channels.
        max_features: Upper limit of any width.
        num_blocks: Depth of the hourglass; the down-scaled side must be divisible by 2^num_blocks.
        temperature: Of the softmax over pixels.
        estimate_affine: Regress the 2x2 affine by a convolution head (FOMM), where `pca_based` is off.
        scale_factor: Anti-aliased down-scaling of the input.
        pca_based: Affine frame from the principal axes of the region's heat map (MRAA).
        fast_svd: Accepted for official configurations; chooses between two SVD libraries there, while the axes are
            found in closed form here.
        pad: Padding of the 7x7 heads. 3 keeps the size; 0 (MHAD and NATOPS) shrinks the heat map by 6 pixels, whose
            coordinates still span [-1, 1], so that region coordinates are stretched. Nothing in a state dict shows it.
    """

    def __init__(
        self,
        block_expansion: int,
        num_regions: int,
        num_channels: int,
        max_features: int,
        num_blocks: int,
        temperature: float,
        estimate_affine: bool = False,
        scale_factor: float = 1.0,
        pca_based: bool = False,
        fast_svd: bool = False,
        pad: int = 3,
    ) -> None:
        super().__init__()
        self.predictor = Hourglass(block_expansion, num_channels, num_blocks, max_features)
        self.regions = nn.Conv2d(self.predictor.out_filters, num_regions, 7, padding=pad)
        self.jacobian: nn.Conv2d | None = None
        if estimate_affine and not pca_based:
            self.jacobian = nn.Conv2d(self.predictor.out_filters, 4, 7, padding=pad)
            nn.init.zeros_(self.jacobian.weight)
            self.jacobian.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 1.0]))
        self.temperature, self.pca_based = temperature, pca_based
        self.scale_factor = scale_factor
        if scale_factor != 1:
            self.down = AntiAliasDownsample(num_channels, scale_factor)

    def forward(self, x: Tensor) -> RegionParams:
        """Finds the regions of a batch of images.

        Args:
            x: (B, C, H, W) in [0, 1].

        Returns:
            `shift` (B, K, 2) centres (x, y) in [-1, 1] and `heatmap` (B, K, h, w) of sum 1; with an affine frame also
            `affine` and `covar` (B, K, 2, 2), and with `pca_based` its factors `u`, `d` (B K, 2, 2), all fp32.
        """
        if self.scale_factor != 1:
            x = self.down(x)
        features = self.predictor(fast_layout(x, self.training))
        # fp32 island: a softmax at temperature 0.1 and second moments do not survive bf16
        with torch.autocast(x.device.type, enabled=False):
            features = features.to(self.regions.weight.dtype)
            logits = at_least_fp32(self.regions(features))
            batch, count, height, width = logits.shape
            heatmap = F.softmax(logits.flatten(2) / self.temperature, dim=2)
            grid = coordinate_grid(height, width, device=heatmap.device, dtype=heatmap.dtype).view(-1, 2)
            shift = heatmap @ grid
            params: RegionParams = {"shift": shift, "heatmap": heatmap.view(batch, count, height, width)}
            if self.jacobian is not None:
                numbers = at_least_fp32(self.jacobian(features))
                affine = (heatmap @ numbers.flatten(2).mT).view(batch, count, 2, 2)
                params["affine"], params["covar"] = affine, affine @ affine.mT
            elif self.pca_based:
                covar = self._covariance(heatmap, grid, shift)
                axes, values = principal_axes(covar, guard=self.training)
                roots = values.sqrt()
                params |= {"covar": covar, "affine": axes * roots[..., None, :]}
                params |= {"u": axes.flatten(0, 1), "d": torch.diag_embed(roots).flatten(0, 1)}
            return params

    @staticmethod
    def _covariance(heatmap: Tensor, grid: Tensor, shift: Tensor) -> Tensor:
        """Sum over pixels of p (g - mu)(g - mu)^T, centred before squaring: (B, K, 2, 2)."""
        x, y = (grid - shift[:, :, None]).unbind(-1)
        xx, xy, yy = ((heatmap * product).sum(-1) for product in (x * x, x * y, y * y))
        return torch.stack((torch.stack((xx, xy), dim=-1), torch.stack((xy, yy), dim=-1)), dim=-2)
