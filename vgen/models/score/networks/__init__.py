"""Networks of score-based models: the U-Net of DDPM, DDPM++ and NCSN++, ADM's, and what wraps them."""

from vgen.models.score.networks.adm import ADM
from vgen.models.score.networks.unet import ScoreUNet
from vgen.models.score.networks.wrappers import Preconditioned, ScoreNetwork

__all__ = ["ADM", "Preconditioned", "ScoreNetwork", "ScoreUNet"]
