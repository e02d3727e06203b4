"""PVDM: diffusion on three projected planes (Yu et al., CVPR 2023)."""

from vgen.models.card import FamilyCard
from vgen.models.pvdm.autoencoder_module import PlaneAutoencoder
from vgen.models.pvdm.losses import LossWeights
from vgen.models.pvdm.module import PVDM
from vgen.models.pvdm.networks import PlaneUNet, ViTAutoencoder
from vgen.nn.patch_discriminator import PatchDiscriminator

FAMILY = FamilyCard(
    name="pvdm",
    title="PVDM",
    paper="Yu, Sohn, Kim, Shin: Video Probabilistic Diffusion Models in Projected Latent Space, CVPR 2023, "
    "arXiv 2302.07685",
    year=2023,
    status="trains",
    summary="Video of any length without conditions: diffuses three planes that a transformer projects clips onto.",
    recipe="pvdm_ucf101",
    parameters={
        "ViTAutoencoder": 62_064_399,
        "PlaneUNet (PVDM-L)": 528_273_412,
        "PlaneUNet (PVDM-S)": 132_163_588,
        "PatchDiscriminator of frames": 2_766_529,
        "PatchDiscriminator of clips": 11_057_857,
    },
    parity_vectors=5,
    code="https://github.com/sihyun-yu/PVDM",
    license="MIT",
)

__all__ = [
    "FAMILY",
    "PVDM",
    "LossWeights",
    "PatchDiscriminator",
    "PlaneAutoencoder",
    "PlaneUNet",
    "ViTAutoencoder",
]
