"""LFDM: image-to-video by latent flow diffusion (Ni et al., CVPR 2023)."""

from vgen.models.card import FamilyCard
from vgen.models.lfdm.autoencoder_module import LatentFlowAutoencoder
from vgen.models.lfdm.module import LFDM
from vgen.models.lfdm.networks import (
    LFAE,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    RegionPredictorConfig,
    Unet3D,
)

FAMILY = FamilyCard(
    name="lfdm",
    title="LFDM",
    paper="Ni, Shi, Li, Huang, Min: Conditional Image-to-Video Generation with Latent Flow Diffusion Models, CVPR 2023",
    year=2023,
    status="trains",
    summary="Animates one picture towards a class: diffuses latent optical flow and occlusion, then warps and decodes.",
    recipe="lfdm_mug",
    parameters={
        "LFAE": 66_004_557,
        "Unet3D (MUG, MHAD)": 42_731_203,
        "Unet3D (NATOPS)": 42_129_859,
    },
    parity_vectors=9,
    code="https://github.com/nihaomiao/CVPR23_LFDM",
)

__all__ = [
    "FAMILY",
    "LFAE",
    "LFDM",
    "BackgroundConfig",
    "FlowPredictorConfig",
    "GeneratorConfig",
    "LatentFlowAutoencoder",
    "RegionPredictorConfig",
    "Unet3D",
]
