"""How a network F becomes a denoiser D(x; sigma) of x = x0 + sigma eps (Karras et al. 2022, section 5 and table 1).

D(x; sigma) = c_skip x + c_out F(c_in x, c_noise), in four published ways. A process whose signal is scaled, such as
VP, is first brought to this form by dividing x_t by its alpha.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from vgen.diffusion.prediction import SIGMA_DATA, edm_skip_out


@dataclass(frozen=True)
class Preconditioning:
    """The four coefficients as functions of sigma.

    Args:
        kind: edm; vp and ve: of score SDE's models; iddpm: of improved DDPM's, whose noise levels are a table.
        sigma_data: Standard deviation of the data, for edm.
        beta_d: Slope of VP's beta(t) = beta_d t + beta_min.
        beta_min: Its value at t = 0.
        steps: Number of noise levels M that vp's and iddpm's networks were trained with.
    """

    kind: Literal["edm", "vp", "ve", "iddpm"] = "edm"
    sigma_data: float = SIGMA_DATA
    beta_d: float = 19.9
    beta_min: float = 0.1
    steps: int = 1000

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise, each of the shape of sigma.

        Args:
            sigma: Noise levels, any shape, fp32 or fp64.
        """
        one = torch.ones_like(sigma)
        if self.kind == "edm":
            skip, out = edm_skip_out(sigma, self.sigma_data)
            return skip, out, (sigma**2 + self.sigma_data**2) ** -0.5, sigma.log() / 4
        if self.kind == "ve":
            return one, sigma, one, (sigma / 2).log()
        scaled = (sigma**2 + 1) ** -0.5
        if self.kind == "vp":
            return one, -sigma, scaled, (self.steps - 1) * vp_time(sigma, self.beta_d, self.beta_min)
        table = iddpm_sigmas(self.steps).to(sigma.device)
        nearest = (sigma.float().reshape(-1, 1) - table).abs().argmin(1).view(sigma.shape)
        return one, -sigma, scaled, self.steps - 1 - nearest.to(sigma.dtype)


def vp_time(sigma: Tensor, beta_d: float = 19.9, beta_min: float = 0.1) -> Tensor:
    """The time t of the VP process with sigma(t)^2 = exp(beta_d t^2/2 + beta_min t) - 1."""
    return ((beta_min**2 + 2 * beta_d * (1 + sigma**2).log()).sqrt() - beta_min) / beta_d


def vp_sigma(time: Tensor, beta_d: float = 19.9, beta_min: float = 0.1) -> Tensor:
    """Inverse of `vp_time`."""
    return ((beta_d * time**2 / 2 + beta_min * time).exp() - 1).sqrt()


@cache
def iddpm_sigmas(steps: int = 1000, c1: float = 0.001, c2: float = 0.008) -> Tensor:
    """The noise levels u_0 > ... > u_M = 0 of improved DDPM (Karras et al. 2022, table 1).

    Returns:
        (steps + 1,), fp32, on the CPU; not to be changed.
    """
    # in fp32 throughout, as the models were trained: an index of the table is what their networks are told
    alpha = torch.sin(0.5 * math.pi * torch.arange(steps + 1, device="cpu") / steps / (c2 + 1)) ** 2
    table = torch.zeros(steps + 1, device="cpu")
    for j in range(steps, 0, -1):
        table[j - 1] = ((table[j] ** 2 + 1) / (alpha[j - 1] / alpha[j]).clamp(min=c1) - 1).sqrt()
    return table
