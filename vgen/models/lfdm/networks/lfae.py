"""The flow auto-encoder as one module: regions, background, flow, decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.models.lfdm.networks.bg_predictor import BGMotionPredictor
from vgen.models.lfdm.networks.blocks import Recomputed
from vgen.models.lfdm.networks.configs import (
    MUG128_BACKGROUND,
    MUG128_GENERATOR,
    MUG128_REGIONS,
    BackgroundConfig,
    GeneratorConfig,
    RegionPredictorConfig,
)
from vgen.models.lfdm.networks.flow_predictor import PixelwiseFlowPredictor
from vgen.models.lfdm.networks.generator import Generator
from vgen.models.lfdm.networks.region_predictor import RegionParams, RegionPredictor


def fold_frames(video: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B T, C, H, W), frames of one clip adjacent."""
    return video.transpose(1, 2).flatten(0, 1)


def unfold_frames(frames: Tensor, batch: int) -> Tensor:
    """(B T, C, H, W) -> (B, C, T, H, W)."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)


class LFAE(Configurable, nn.Module):
    """Latent flow auto-encoder (LFDM stage 1, architecture of MRAA).

    The defaults are the official 128 px configuration of MUG: 66,004,557 parameters.

    Args:
        num_regions: Regions K.
        num_channels: Image channels.
        estimate_affine: Regress affine frames where `region_predictor.pca_based` is off.
        revert_axis_swap: Undo half turns of the region axes between frames.
        region_predictor: Region predictor.
        bg_predictor: Background motion predictor.
        generator: Encoder, flow predictor and decoder.
        checkpointing: Compute activations of blocks again in the backward pass instead of keeping them: less memory,
            more time, the same gradients and BatchNorm statistics.
    """

    def __init__(
        self,
        num_regions: int = 10,
        num_channels: int = 3,
        estimate_affine: bool = True,
        revert_axis_swap: bool = True,
        region_predictor: RegionPredictorConfig = MUG128_REGIONS,
        bg_predictor: BackgroundConfig = MUG128_BACKGROUND,
        generator: GeneratorConfig = MUG128_GENERATOR,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        shared: dict[str, Any] = {"num_regions": num_regions, "num_channels": num_channels}
        regions = RegionPredictorConfig.of(region_predictor).arguments() | {"estimate_affine": estimate_affine}
        images = GeneratorConfig.of(generator).arguments() | {"revert_axis_swap": revert_axis_swap}
        background = BackgroundConfig.of(bg_predictor).arguments()
        self.num_channels = num_channels
        self.region_predictor = RegionPredictor(**shared, **regions)
        self.bg_predictor = BGMotionPredictor(num_channels=num_channels, **background)
        self.generator = Generator(**shared, **images)
        for module in self.modules():
            if isinstance(module, Recomputed | Generator):
                module.checkpointing = checkpointing

    @property
    def flow_predictor(self) -> PixelwiseFlowPredictor:
        """The flow predictor inside the generator."""
        predictor = self.generator.pixelwise_flow_predictor
        if predictor is None:
            raise ValueError("this generator was built without a flow predictor")
        return predictor

    @property
    def flow_scale(self) -> float:
        """Flow side / image side."""
        return self.flow_predictor.scale_factor

    @property
    def revert_axis_swap(self) -> bool:
        """Whether half turns of the region axes are undone; the affine equivariance loss follows it."""
        return self.flow_predictor.revert_axis_swap

    @property
    def latent_channels(self) -> int:
        """Channels of z0."""
        blocks = self.generator.down_blocks
        last: Any = blocks[-1] if len(blocks) else self.generator.first
        return int(last.conv.out_channels)

    def regions(self, frames: Tensor) -> RegionParams:
        """Regions of (N, C, H, W) images in [0, 1]; see `RegionPredictor`."""
        return self.region_predictor(frames)

    def forward(self, source: Tensor, driving: Tensor) -> dict[str, Any]:
        """Reconstructs the driving frame from the source frame.

        In training the region predictor runs once per frame set: batching the sets would change BatchNorm's
        statistics.

        Args:
            source: (B, C, H, W) in [0, 1].
            driving: (B, C, H, W) in [0, 1].

        Returns:
            What `Generator.forward` returns, and `source_region_params`, `driving_region_params` and `bg_params`.
        """
        source_params, driving_params = self.region_predictor(source), self.region_predictor(driving)
        bg_params = self.bg_predictor(source, driving)
        out: dict[str, Any] = self.generator(source, driving_params, source_params, bg_params=bg_params)
        return out | {
            "source_region_params": source_params,
            "driving_region_params": driving_params,
            "bg_params": bg_params,
        }

    def flow(self, source: Tensor, driving: Tensor) -> tuple[Tensor, Tensor | None]:
        """Flow and occlusion of a clip relative to its source image, without decoding anything.

        All frames go through the networks in one batch; the source's regions and small image are computed once. In
        eval mode the result equals that of the official loop over frames.

        Args:
            source: (B, C, H, W) in [0, 1].
            driving: (B, C, T, H, W) in [0, 1].

        Returns:
            Flow (B, 2, T, h, w), absolute sampling coordinates (x, y), and occlusion (B, 1, T, h, w) in [0, 1] or
            None where it is not estimated.
        """
        batch, _, length = driving.shape[:3]
        frames = fold_frames(driving)
        source_params, driving_params = self.region_predictor(source), self.region_predictor(frames)
        bg_params = self.bg_predictor(source.repeat_interleave(length, dim=0), frames)
        motion = self.flow_predictor(source, driving_params, source_params, bg_params=bg_params)
        flow = unfold_frames(motion["optical_flow"].permute(0, 3, 1, 2), batch)
        occlusion = motion.get("occlusion_map")
        return flow, None if occlusion is None else unfold_frames(occlusion, batch)

    def encode_source(self, source: Tensor) -> Tensor:
        """z0 of (B, C, H, W) images in [0, 1]: (B, latent_channels, h, w)."""
        return self.generator.compute_fea(source)

    def decode(self, source: Tensor, flow: Tensor, occlusion: Tensor | None, chunk: int = 40) -> Tensor:
        """Warps and decodes a clip from its source image; the source is encoded once.

        Args:
            source: (B, C, H, W) in [0, 1].
            flow: (B, 2, T, h, w) absolute sampling coordinates.
            occlusion: (B, 1, T, h, w) in [0, 1], or None.
            chunk: Frames decoded at once; bounds the memory.

        Returns:
            (B, C, T, H, W) in [0, 1].
        """
        batch, _, length = flow.shape[:3]
        features = self.generator.encode(source)
        grids = fold_frames(flow).permute(0, 2, 3, 1)
        masks = None if occlusion is None else fold_frames(occlusion)
        frames = []
        for start in range(0, batch * length, chunk):
            stop = min(start + chunk, batch * length)
            clip = torch.arange(start, stop, device=flow.device) // length
            mask = None if masks is None else masks[start:stop]
            skips = [level[clip] for level in features]
            frames.append(self.generator.decode(source[clip], skips, grids[start:stop], mask))
        return unfold_frames(torch.cat(frames), batch)

    def deform(self, source: Tensor, flow: Tensor) -> Tensor:
        """The source image warped by each flow, without decoder: (B, C, H, W), (B, 2, T, h, w) -> (B, C, T, H, W)."""
        batch, _, length = flow.shape[:3]
        frames = source.repeat_interleave(length, dim=0)
        return unfold_frames(self.generator.deform_input(frames, fold_frames(flow).permute(0, 2, 3, 1)), batch)
