"""VDM: diffusion of clips in pixels (Ho et al. 2022)."""

from vgen.models.card import FamilyCard
from vgen.models.vdm.module import VDM
from vgen.models.vdm.networks import Unet3D

FAMILY = FamilyCard(
    name="vdm",
    title="VDM",
    paper="Ho, Salimans, Gritsenko, Chan, Norouzi, Fleet: Video Diffusion Models, 2022, arXiv 2204.03458",
    year=2022,
    status="trains",
    summary="Diffuses clips in pixels by a factorised 3D U-Net; goes on behind them by reconstruction guidance.",
    recipe="vdm_ucf101",
    parameters={"Unet3D dim 64 (video-diffusion-pytorch 0.7.0)": 35_706_243, "the same, 0.6.3": 35_714_307},
    parity_vectors=3,
    code="https://github.com/lucidrains/video-diffusion-pytorch (not the authors', who released none)",
    license="MIT",
)

__all__ = ["FAMILY", "VDM", "Unet3D"]
