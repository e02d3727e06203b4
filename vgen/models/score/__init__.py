"""Score-based models of frames and clips: NCSN, DDPM, score SDE (Song et al. 2021) and EDM (Karras et al. 2022)."""

from vgen.models.card import FamilyCard
from vgen.models.score.augmentation import Augmentation
from vgen.models.score.module import ScoreModel
from vgen.models.score.networks import ADM, NCSN, Preconditioned, ScoreNetwork, ScoreUNet, ScoreUNet3D

FAMILY = FamilyCard(
    name="score",
    title="Score SDE and EDM",
    paper="Song et al.: Score-Based Generative Modeling through SDEs, ICLR 2021; Karras et al.: EDM, NeurIPS 2022",
    year=2021,
    status="trains",
    summary="Score-based diffusion of frames or clips: NCSN, NCSN++, DDPM++, ADM and 3D networks; VE, VP, sub-VP, EDM.",
    recipe="edm_clips_sky",
    parameters={
        "NCSN++ (CIFAR-10, VE)": 62_758_915,
        "DDPM++ (CIFAR-10, VP)": 61_804_419,
        "EDM DDPM++ (CIFAR-10)": 55_733_891,
        "EDM ADM (ImageNet-64)": 295_899_267,
    },
    parity_vectors=11,
    code="https://github.com/yang-song/score_sde_pytorch, https://github.com/NVlabs/edm",
    recipes=("score", "edm", "ncsn"),
    license="Apache-2.0 (score_sde_pytorch), CC BY-NC-SA 4.0 (edm: only its formulas are used)",
)

__all__ = [
    "ADM",
    "FAMILY",
    "NCSN",
    "Augmentation",
    "Preconditioned",
    "ScoreModel",
    "ScoreNetwork",
    "ScoreUNet",
    "ScoreUNet3D",
]
