"""Networks of score-based models: U-Nets of DDPM, DDPM++, NCSN++, ADM and of clips, NCSN's, and what wraps them."""

from vgen.models.score.networks.adm import ADM
from vgen.models.score.networks.ncsn import NCSN
from vgen.models.score.networks.unet import ScoreUNet
from vgen.models.score.networks.unet3d import ScoreUNet3D
from vgen.models.score.networks.wrappers import Preconditioned, ScoreNetwork

__all__ = ["ADM", "NCSN", "Preconditioned", "ScoreNetwork", "ScoreUNet", "ScoreUNet3D"]
