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


def of_x0(weight: Tensor, snr: Tensor, prediction: Prediction) -> Tensor:
    """A weight of the squared error of x0 as one of the squared error of what is predicted.

    |x0 error|^2 = |eps error|^2/snr = |v error|^2/(snr + 1) (variance preserving) = sigma^2 |flow error|^2.
    """
    if prediction == "x0":
        return weight
    if prediction == "eps":
        return weight / snr
    if prediction == "v":
        return weight / (snr + 1)
    if prediction == "flow":
        return weight / (1 + snr.sqrt()) ** 2
    raise ValueError(f"no weight of x0 is known for {prediction!r}")


@dataclass(frozen=True)
class LossWeighting:
    """The weight of each sample's loss.

    Args:
        kind: uniform, min_snr, p2; edm, and snr truncated from below at 1 (Salimans & Ho 2022), both of x0.
        gamma: Of min-SNR (5 in the paper) or P2 (1).
        k: Of P2.
        sigma_data: Of edm.
    """

    kind: Literal["uniform", "min_snr", "p2", "edm", "truncated_snr"] = "uniform"
    gamma: float = 5.0
    k: float = 1.0
    sigma_data: float = SIGMA_DATA

    def __call__(self, snr: Tensor, prediction: Prediction) -> Tensor | None:
        """Weights for ratios of any shape; None for a weight of one."""
        if self.kind == "min_snr":
            return min_snr(snr, prediction, self.gamma)
        if self.kind == "p2":
            return p2(snr, self.k, self.gamma)
        if self.kind == "edm":
            return of_x0(edm(snr**-0.5, self.sigma_data), snr, prediction)
        if self.kind == "truncated_snr":
            return of_x0(snr.clamp(min=1), snr, prediction)
        return None
