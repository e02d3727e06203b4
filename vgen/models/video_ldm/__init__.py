"""Latent video diffusion: the baseline of auto-encoder and 3D U-Net, and LVDM (He et al. 2022)."""

from vgen.models.card import FamilyCard
from vgen.models.video_ldm.autoencoder_module import VideoAutoencoder
from vgen.models.video_ldm.module import VideoLDM
from vgen.models.video_ldm.networks import Autoencoder3D, FrameAutoencoder, LVDMUnet
from vgen.nn.patch_discriminator import PatchDiscriminator

FAMILY = FamilyCard(
    name="video_ldm",
    title="Video LDM (LVDM)",
    paper="He, Yang, Zhang, Shan, Chen: Latent Video Diffusion Models for High-Fidelity Long Video Generation, 2022, "
    "arXiv 2211.13221; Rombach et al., CVPR 2022",
    year=2022,
    status="trains",
    summary="Diffuses the latent of a KL auto-encoder, of frames or of clips, by a 3D U-Net.",
    recipe="ldm_mug",
    parameters={
        "LVDM U-Net": 548_904_580,
        "LVDM 3D auto-encoder": 19_446_759,
        "KL-f8 auto-encoder of frames": 83_653_863,
        "PatchDiscriminator of frames": 2_765_633,
        "Unet3D dim 128, mults 1 2 4 4, 4 channels": 72_606_980,
    },
    parity_vectors=2,
    code="https://github.com/YingqingHe/LVDM",
    license="MIT",
    recipes=("ldm",),
)

__all__ = [
    "FAMILY",
    "Autoencoder3D",
    "FrameAutoencoder",
    "LVDMUnet",
    "PatchDiscriminator",
    "VideoAutoencoder",
    "VideoLDM",
]
