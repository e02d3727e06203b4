"""Encoder, flow warping and decoder of the flow auto-encoder (MRAA generator with LFDM's additions)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.models.lfdm.networks.blocks import DownBlock2d, ResBlock2d, SameBlock2d, UpBlock2d, fast_layout
from vgen.models.lfdm.networks.flow_predictor import PixelwiseFlowPredictor
from vgen.models.lfdm.networks.region_predictor import RegionParams
from vgen.nn.recompute import recompute
from vgen.nn.warp import resize_grid, warp


class Generator(nn.Module):
    """Warps the encoded source by a flow and decodes the driving frame.

    Args:
        num_channels: Image channels.
        num_regions: Regions K.
        block_expansion: Base width.
        max_features: Upper limit of any width.
        num_down_blocks: Halvings between image and latent z0.
        num_bottleneck_blocks: Residual blocks on the warped latent.
        pixelwise_flow_predictor_params: Arguments of `PixelwiseFlowPredictor`; None builds no flow predictor.
        skips: Blend each decoder level, and the output, with the warped encoder features.
        revert_axis_swap: See `PixelwiseFlowPredictor`.
    """

    def __init__(
        self,
        num_channels: int,
        num_regions: int,
        block_expansion: int,
        max_features: int,
        num_down_blocks: int,
        num_bottleneck_blocks: int,
        pixelwise_flow_predictor_params: dict[str, Any] | None = None,
        skips: bool = False,
        revert_axis_swap: bool = True,
    ) -> None:
        super().__init__()
        self.pixelwise_flow_predictor: PixelwiseFlowPredictor | None = None
        if pixelwise_flow_predictor_params is not None:
            self.pixelwise_flow_predictor = PixelwiseFlowPredictor(
                num_regions=num_regions,
                num_channels=num_channels,
                revert_axis_swap=revert_axis_swap,
                **pixelwise_flow_predictor_params,
            )
        widths = [min(max_features, block_expansion * 2**i) for i in range(num_down_blocks + 1)]
        self.first = SameBlock2d(num_channels, block_expansion, kernel_size=7, padding=3)
        self.down_blocks = nn.ModuleList(DownBlock2d(widths[i], widths[i + 1]) for i in range(num_down_blocks))
        self.up_blocks = nn.ModuleList(UpBlock2d(widths[i + 1], widths[i]) for i in reversed(range(num_down_blocks)))
        self.bottleneck = nn.Sequential()
        for i in range(num_bottleneck_blocks):
            self.bottleneck.add_module(f"r{i}", ResBlock2d(widths[-1]))
        self.final = nn.Conv2d(block_expansion, num_channels, 7, padding=3)
        self.num_channels, self.skips = num_channels, skips
        self.checkpointing = False

    def encode(self, source_image: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [0, 1] -> features of each level, finest first; the last is z0."""
        features = [self.first(fast_layout(source_image, self.training))]
        for block in self.down_blocks:
            features.append(block(features[-1]))
        return features

    def compute_fea(self, source_image: Tensor) -> Tensor:
        """z0 of (B, C, H, W) images in [0, 1]: (B, width, H/2^n, W/2^n), not negative, not normalised."""
        return self.encode(source_image)[-1]

    @staticmethod
    def deform_input(inp: Tensor, optical_flow: Tensor) -> Tensor:
        """Reads (N, C, H, W) at the flow (N, h, w, 2), resized to (H, W)."""
        return warp(inp, resize_grid(optical_flow, (inp.shape[2], inp.shape[3])))

    def _blend(self, skip: Tensor, *others: Tensor | None) -> Tensor:
        blended: Tensor = (
            recompute(self._blended, skip, *others) if self.checkpointing else self._blended(skip, *others)
        )
        return blended

    def _blended(self, skip: Tensor, previous: Tensor | None, flow: Tensor | None, occlusion: Tensor | None) -> Tensor:
        """warp(skip) occ + previous (1 - occ).

        Without occlusion the warped skip replaces `previous` (so with `skips` the prediction is the warped source),
        and without a flow `previous` stays: both as in the official class.
        """
        if flow is None:
            return skip if previous is None else previous
        size = (skip.shape[2], skip.shape[3])
        warped = self.deform_input(skip, flow)
        if occlusion is None:
            return warped
        if tuple(occlusion.shape[2:]) != size:
            occlusion = F.interpolate(occlusion, size=size, mode="bilinear", align_corners=False)
        occlusion = occlusion.to(warped.dtype)
        return warped * occlusion if previous is None else warped * occlusion + previous * (1 - occlusion)

    def decode(
        self, source_image: Tensor, features: list[Tensor], flow: Tensor | None, occlusion: Tensor | None
    ) -> Tensor:
        """Decodes the warped source.

        Args:
            source_image: (N, C, H, W) in [0, 1].
            features: What `encode` returned for it.
            flow: (N, h, w, 2) sampling grid of any size, or None for no motion.
            occlusion: (N, 1, h, w) in [0, 1], or None.

        Returns:
            (N, C, H, W) in [0, 1].
        """
        out = self.bottleneck(self._blend(features[-1], None, flow, occlusion))
        for block, skip in zip(self.up_blocks, reversed(features[1:]), strict=True):
            if self.skips:
                out = self._blend(skip, out, flow, occlusion)
            out = block(out)
        if self.skips:
            out = self._blend(features[0], out, flow, occlusion)
        out = torch.sigmoid(self.final(out))
        return self._blend(source_image, out, flow, occlusion) if self.skips else out

    def forward_with_flow(
        self, source_image: Tensor, optical_flow: Tensor, occlusion_map: Tensor | None
    ) -> dict[str, Tensor]:
        """As `forward`, with given flow (B, h, w, 2) and occlusion (B, 1, h, w)."""
        features = self.encode(source_image)
        return {
            "bottle_neck_feat": features[-1],
            "deformed": self.deform_input(source_image, optical_flow),
            "prediction": self.decode(source_image, features, optical_flow, occlusion_map),
        }

    def forward(
        self,
        source_image: Tensor,
        driving_region_params: RegionParams,
        source_region_params: RegionParams,
        bg_params: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Reconstructs the driving frame from the source.

        Args:
            source_image: (B, C, H, W) in [0, 1].
            driving_region_params: Regions of the driving frame.
            source_region_params: Regions of the source.
            bg_params: (B, 3, 3) background homography, or None for identity.

        Returns:
            `prediction` and `deformed` (the source warped without occlusion) (B, C, H, W); `optical_flow`
            (B, h, w, 2); `occlusion_map` (B, 1, h, w) where it is estimated; `bottle_neck_feat`, z0.
        """
        features = self.encode(source_image)
        out = {"bottle_neck_feat": features[-1]}
        flow = occlusion = None
        if self.pixelwise_flow_predictor is not None:
            motion = self.pixelwise_flow_predictor(
                source_image, driving_region_params, source_region_params, bg_params=bg_params
            )
            flow, occlusion = motion["optical_flow"], motion.get("occlusion_map")
            out |= motion | {"deformed": self.deform_input(source_image, flow)}
        out["prediction"] = self.decode(source_image, features, flow, occlusion)
        return out
