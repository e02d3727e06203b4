"""Weights of the training loss as functions of the signal-to-noise ratio snr = alpha^2/sigma^2."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vgen.diffusion.prediction import SIGMA_DATA, Prediction


def min_snr(snr: Tensor, prediction: Prediction, gamma: float = 5.0) -> Tensor:
    """Min-SNR-gamma (Hang et al. 2023, section 3.4), as the weight of a mean square error.

    x0: min(snr, gamma); eps: that / snr (its limit 1 at snr = 0); v: that / (snr + 1).
    """
    cut = snr.clamp(max=gamma)
    if prediction == "x0":
        return cut
    if prediction == "eps":
        return torch.where(snr > 0, cut / snr.clamp(min=torch.finfo(snr.dtype).tiny), torch.ones_like(snr))
    if prediction == "v":
        return cut / (snr + 1)
    raise ValueError(f"min-SNR is defined for eps, x0 and v, not for {prediction!r}")


def p2(snr: Tensor, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """1/(k + snr)^gamma (Choi et al. 2022, equation 8)."""
    return (k + snr) ** -gamma


def edm(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> Tensor:
    """(sigma^2 + sigma_data^2)/(sigma sigma_data)^2 on |x0 error|^2 (Karras et al. 2022, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


@dataclass(frozen=True)
class LossWeighting:
    """The weight of each sample's loss.

    Args:
        kind: uniform, min_snr or p2.
        gamma: Of min-SNR (5 in the paper) or P2 (1).
        k: Of P2.
    """

    kind: Literal["uniform", "min_snr", "p2"] = "uniform"
    gamma: float = 5.0
    k: float = 1.0

    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor | None:
        """(B,) weights for (B,) ratios; None for a weight of one."""
        if self.kind == "min_snr":
            return min_snr(snr, prediction, self.gamma)
        if self.kind == "p2":
            return p2(snr, self.k, self.gamma)
        return None
