"""LFDM: LFAE-S and DM-S are its two stages at a size that a CPU can train; LFAE and DM are published, for MUG."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.rows.base import TINY_UNET3D, Row, spec, switch
from vgen.conditioning import LabelEmbedding
from vgen.losses import L1Pyramid, VGGPyramid
from vgen.models.lfdm import (
    LFAE,
    LFDM,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    LatentFlowAutoencoder,
    RegionPredictorConfig,
    Unet3D,
)
from vgen.training import SingleLossModule


def _small_lfae(checkpointing: bool = False) -> LFAE:
    flow = FlowPredictorConfig(32, 256, 5)
    return LFAE(
        num_regions=10,
        region_predictor=RegionPredictorConfig(16, 256, 5),
        bg_predictor=BackgroundConfig(16, 256, 5),
        generator=GeneratorConfig(32, 256, 2, 6, flow_predictor=flow),
        **switch(checkpointing),
    )


def _tiny_lfae(checkpointing: bool = False) -> LFAE:
    flow = FlowPredictorConfig(4, 16, 2)
    return LFAE(
        num_regions=3,
        region_predictor=RegionPredictorConfig(4, 16, 2),
        bg_predictor=BackgroundConfig(4, 16, 2),
        generator=GeneratorConfig(4, 16, 2, 1, flow_predictor=flow),
        **switch(checkpointing),
    )


def _full_lfae(checkpointing: bool = False) -> LFAE:
    return LFAE(**switch(checkpointing))


_ADAM = {"lfae": partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999)), "dm": partial(torch.optim.Adam, lr=2e-4)}


def _autoencoder(lfae: Callable[[bool], LFAE], side: int, checkpointing: bool) -> SingleLossModule:
    loss: torch.nn.Module = L1Pyramid((1, 0.5))
    if side >= 128:  # VGG of four scales, with fixed random weights: its cost does not depend on them
        loss = VGGPyramid(random_init=True, **switch(checkpointing))
    return LatentFlowAutoencoder(spec(2, side), lfae(checkpointing), loss, optimizer=_ADAM["lfae"])


def _diffusion(lfae: Callable[[bool], LFAE], unet: dict[str, Any], frames: int, side: int, on: bool) -> LFDM:
    codec = LatentFlowAutoencoder(spec(2, side), lfae(False), None)
    denoiser = Unet3D(channels=3 + codec.network.latent_channels, cond_dim=768, **unet, **switch(on))
    # a table of seven vectors of BERT's width, which is what is left of BERT in a step
    label = LabelEmbedding(768, kind="one_hot")
    return LFDM(spec(frames, side), denoiser, codec, label, optimizer=_ADAM["dm"])


ROWS: dict[str, Row] = {
    "lfae-s": Row(
        "LFAE, regions and background 16/256/5, generator 32/256, flow 32/256/5, K 10, VGG19 on 4 scales, 128 px",
        clips=2,
        parameters=9_482_141,
        module=partial(_autoencoder, _small_lfae, 128),
        frames=2,
        side=128,
    ),
    "dm-s": Row(
        "Unet3D dim 32, mults 1 2 4 8, 131 channels, over the frozen LFAE-S, 10 frames, 128 px",
        clips=2,
        parameters=13_251_555,
        module=partial(_diffusion, _small_lfae, {"dim": 32}, 10, 128),
        frames=10,
        side=128,
    ),
    "lfae": Row(
        "LFAE of lfdm_mug.yaml, VGG19 on 4 scales, 128 px, batch of the release",
        clips=100,
        parameters=66_004_557,
        module=partial(_autoencoder, _full_lfae, 128),
        frames=2,
        side=128,
    ),
    "dm": Row(
        "Unet3D of lfdm_mug.yaml over the frozen LFAE, 40 frames, 128 px, batch of the release",
        clips=5,
        parameters=42_731_203,
        module=partial(_diffusion, _full_lfae, {"dim": 64}, 40, 128),
        frames=40,
        side=128,
    ),
    "lfae-tiny": Row(
        "tiny networks, 2 frames, 32 px",
        clips=2,
        parameters=23_922,
        module=partial(_autoencoder, _tiny_lfae, 32),
        frames=2,
        side=32,
    ),
    "dm-tiny": Row(
        "tiny networks, 3 frames, 32 px",
        clips=2,
        parameters=240_507,
        module=partial(_diffusion, _tiny_lfae, TINY_UNET3D, 3, 32),
        frames=3,
        side=32,
    ),
}
