"""Dense flow from the motion of regions and background (MRAA section 3.3)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.models.lfdm.networks.blocks import Hourglass, fast_layout
from vgen.models.lfdm.networks.region_predictor import RegionParams
from vgen.nn.antialias import AntiAliasDownsample
from vgen.nn.geometry import inverse_2x2
from vgen.nn.warp import coordinate_grid, warp


def region_gaussian(center: Tensor, covar: Tensor | float, size: tuple[int, int]) -> Tensor:
    """Unnormalised Gaussians exp(-d^T covar^-1 d / 2) on the coordinate grid.

    Args:
        center: (..., 2) in [-1, 1].
        covar: (..., 2, 2), or one variance for all.
        size: (h, w).

    Returns:
        (..., h, w).
    """
    grid = coordinate_grid(*size, device=center.device, dtype=center.dtype)
    dx, dy = (grid - center[..., None, None, :]).unbind(-1)
    if isinstance(covar, Tensor):
        inverse = inverse_2x2(covar)[..., None, None]
        xx, xy, yx, yy = (inverse[..., i, j, :, :] for i in range(2) for j in range(2))
        distance = (dx * xx + dy * yx) * dx + (dx * xy + dy * yy) * dy
    else:
        distance = (dx * dx + dy * dy) / covar
    return torch.exp(-0.5 * distance)


class PixelwiseFlowPredictor(nn.Module):
    """Blends the motions of K regions and the background into one backward sampling grid, and predicts occlusion.

    Args:
        block_expansion: Base width of the hourglass.
        num_blocks: Depth of the hourglass.
        max_features: Upper limit of any width.
        num_regions: Regions K.
        num_channels: Image channels.
        estimate_occlusion_map: Also predict which pixels the source does not show.
        scale_factor: Anti-aliased down-scaling of the source; the flow has that size.
        region_var: Variance of the heat-map Gaussians where `use_covar_heatmap` is off.
        use_covar_heatmap: Gaussians with the regions' own covariance.
        use_deformed_source: Show the hourglass the source warped by each motion.
        revert_axis_swap: Make the [0, 0] entry of each relative affine positive: the axes of a region are known only
            up to a half turn.
    """

    def __init__(
        self,
        block_expansion: int,
        num_blocks: int,
        max_features: int,
        num_regions: int,
        num_channels: int,
        estimate_occlusion_map: bool = False,
        scale_factor: float = 1.0,
        region_var: float = 0.01,
        use_covar_heatmap: bool = False,
        use_deformed_source: bool = True,
        revert_axis_swap: bool = False,
    ) -> None:
        super().__init__()
        per_region = 1 + (num_channels if use_deformed_source else 0)
        self.hourglass = Hourglass(block_expansion, (num_regions + 1) * per_region, num_blocks, max_features)
        self.mask = nn.Conv2d(self.hourglass.out_filters, num_regions + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.out_filters, 1, 7, padding=3) if estimate_occlusion_map else None
        self.region_var = region_var
        self.use_covar_heatmap, self.use_deformed_source = use_covar_heatmap, use_deformed_source
        self.revert_axis_swap = revert_axis_swap
        self.scale_factor = scale_factor
        if scale_factor != 1:
            self.down = AntiAliasDownsample(num_channels, scale_factor)

    def small(self, source_image: Tensor) -> Tensor:
        """The source at flow resolution: (B, C, H, W) -> (B, C, h, w)."""
        return self.down(source_image) if self.scale_factor != 1 else source_image

    def create_heatmap_representations(
        self, size: tuple[int, int], driving_region_params: RegionParams, source_region_params: RegionParams
    ) -> Tensor:
        """Driving minus source Gaussians, (B T, K+1, 1, h, w); entry 0, the background, is zero (MRAA Eq. 6)."""
        maps = []
        for params in (driving_region_params, source_region_params):
            covar: Tensor | float = params["covar"] if self.use_covar_heatmap else self.region_var
            maps.append(region_gaussian(params["shift"], covar, size))
        driving, source = maps
        difference = driving - source.repeat_interleave(len(driving) // len(source), dim=0)
        return F.pad(difference, (0, 0, 0, 0, 1, 0)).unsqueeze(2)

    def create_sparse_motions(
        self,
        size: tuple[int, int],
        driving_region_params: RegionParams,
        source_region_params: RegionParams,
        bg_params: Tensor | None = None,
    ) -> Tensor:
        """Sampling grid of each motion, (B T, K+1, h, w, 2): background first (MRAA Eq. 4-5).

        Region k: A_s A_d^-1 (z - mu_d) + mu_s. Background: the homography `bg_params` applied to z.
        """
        mu_d = driving_region_params["shift"]
        repeats = len(mu_d) // len(source_region_params["shift"])
        mu_s = source_region_params["shift"].repeat_interleave(repeats, dim=0)
        grid = coordinate_grid(*size, device=mu_d.device, dtype=mu_d.dtype)
        motion = grid - mu_d[:, :, None, None]
        if "affine" in driving_region_params:
            source_affine = source_region_params["affine"].repeat_interleave(repeats, dim=0)
            affine = source_affine @ inverse_2x2(driving_region_params["affine"])
            if self.revert_axis_swap:
                affine = affine * torch.sign(affine[:, :, :1, :1])
            motion = (motion.flatten(2, 3) @ affine.mT).view_as(motion)
        motion = motion + mu_s[:, :, None, None]
        if bg_params is None:
            background = grid.expand(len(mu_d), *grid.shape)
        else:
            bg_params = bg_params.to(grid.dtype)
            flat = grid.view(1, -1, 2) @ bg_params[:, :, :2].mT + bg_params[:, None, :, 2]
            background = (flat[..., :2] / flat[..., 2:]).view(len(mu_d), *grid.shape)
        return torch.cat((background[:, None], motion), dim=1)

    @staticmethod
    def create_deformed_source_image(source_small: Tensor, sparse_motion: Tensor) -> Tensor:
        """The small source (B, C, h, w) read at each of (B T, K+1, h, w, 2): (B T, K+1, C, h, w).

        Motions and frames are stacked along the height of one sampling grid, so that the source is not repeated.
        """
        total, motions, height, width, _ = sparse_motion.shape
        batch, channels = source_small.shape[:2]
        stacked = warp(source_small, sparse_motion.reshape(batch, -1, width, 2))
        deformed = stacked.view(batch, channels, total // batch, motions, height, width)
        return deformed.permute(0, 2, 3, 1, 4, 5).reshape(total, motions, channels, height, width)

    def forward(
        self,
        source_image: Tensor,
        driving_region_params: RegionParams,
        source_region_params: RegionParams,
        bg_params: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Predicts flow and occlusion.

        The driving batch may be T times the source batch, frames of one clip adjacent: what depends on the source
        alone is then computed once.

        Args:
            source_image: (B, C, H, W) in [0, 1].
            driving_region_params: Regions of the driving frames (B T, ...).
            source_region_params: Regions of the sources (B, ...).
            bg_params: (B T, 3, 3) background homographies, or None for identity.

        Returns:
            `optical_flow` (B T, h, w, 2), a backward sampling grid, and with occlusion `occlusion_map`
            (B T, 1, h, w) in [0, 1], 1 where the warped source is kept, and its `occlusion_logits`.
        """
        small = self.small(source_image)
        size = (small.shape[2], small.shape[3])
        with torch.autocast(small.device.type, enabled=False):  # coordinates need fp32
            heatmap = self.create_heatmap_representations(size, driving_region_params, source_region_params)
            motion = self.create_sparse_motions(size, driving_region_params, source_region_params, bg_params)
            inputs = heatmap
            if self.use_deformed_source:
                deformed = self.create_deformed_source_image(small.to(motion.dtype), motion)
                inputs = torch.cat((heatmap, deformed), dim=2)
        inputs = inputs.flatten(1, 2).to(self.mask.weight.dtype)
        logits = self._heads(self.hourglass(fast_layout(inputs, self.training))).to(motion.dtype)
        motions = motion.shape[1]
        mask = logits[:, :motions].softmax(dim=1)
        out = {"optical_flow": (motion * mask[..., None]).sum(dim=1)}
        if self.occlusion is not None:
            out["occlusion_logits"] = logits[:, motions:]
            out["occlusion_map"] = torch.sigmoid(out["occlusion_logits"])
        return out

    def _heads(self, prediction: Tensor) -> Tensor:
        """Logits of the mask and, behind them, of occlusion: one convolution with the filters of both."""
        if self.occlusion is None:
            return self.mask(prediction)
        weight = torch.cat((self.mask.weight, self.occlusion.weight))
        bias = torch.cat([cast(Tensor, head.bias) for head in (self.mask, self.occlusion)])
        return F.conv2d(prediction, weight, bias, padding=3)
