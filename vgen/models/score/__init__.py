"""Score-based models: NCSN, DDPM, score SDE (Song et al. 2021) and EDM (Karras et al. 2022)."""

from vgen.models.score.networks import ADM, Preconditioned, ScoreNetwork, ScoreUNet

__all__ = ["ADM", "Preconditioned", "ScoreNetwork", "ScoreUNet"]
