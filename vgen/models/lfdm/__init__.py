"""LFDM: image-to-video by latent flow diffusion (Ni et al., CVPR 2023)."""

from vgen.models.lfdm.autoencoder import LatentFlowAutoencoder
from vgen.models.lfdm.module import LFDM
from vgen.models.lfdm.networks import (
    LFAE,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    RegionPredictorConfig,
    Unet3D,
)

__all__ = [
    "LFAE",
    "LFDM",
    "BackgroundConfig",
    "FlowPredictorConfig",
    "GeneratorConfig",
    "LatentFlowAutoencoder",
    "RegionPredictorConfig",
    "Unet3D",
]
