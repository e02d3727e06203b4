"""Noise schedules of discrete diffusion: tables in fp64, kept as fp32 buffers.

Notation: beta_t is the variance added by step t, abar_t the product of 1 - beta up to t, and
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from vgen.nn.precision import FullPrecisionBuffers

ScheduleKind = Literal["cosine", "cosine_iddpm", "linear", "scaled_linear"]


def cosine_betas(steps: int, offset: float = 0.008, largest: float = 0.9999) -> Tensor:
    """abar(u) = cos^2((u + s)/(1 + s) pi/2) with u = t/T (Nichol & Dhariwal 2021, equation 17).

    LFDM and the code it descends from cut beta at .9999; iDDPM itself at .999.

    Returns:
        (steps,) fp64.
    """
    u = torch.linspace(0, steps, steps + 1, dtype=torch.float64) / steps
    abar = torch.cos((u + offset) / (1 + offset) * (math.pi / 2)).square()
    abar = abar / abar[0]
    return (1 - abar[1:] / abar[:-1]).clamp(0, largest)


def linear_betas(steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Linear from start to end, both for 1000 steps and scaled by 1000/steps (Ho et al. 2020, section 4): fp64."""
    scale = 1000 / steps
    return torch.linspace(start * scale, end * scale, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Linear in sqrt(beta), the schedule of latent diffusion (Rombach et al. 2022, released code): fp64."""
    return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()


def betas(kind: ScheduleKind, steps: int, ends: tuple[float, float] | None = None) -> Tensor:
    """The named schedule, (steps,) fp64; `ends` are the first and last beta of a linear or scaled linear one."""
    if ends is not None and kind not in ("linear", "scaled_linear"):
        raise ValueError(f"a {kind} schedule has no ends to choose")
    if kind == "cosine":
        return cosine_betas(steps)
    if kind == "cosine_iddpm":
        return cosine_betas(steps, largest=0.999)
    if kind == "linear":
        return linear_betas(steps, *ends or ())
    if kind == "scaled_linear":
        return scaled_linear_betas(steps, *ends or ())
    raise ValueError(f"unknown schedule {kind!r}")


def zero_terminal_snr(beta: Tensor) -> Tensor:
    """Shifts and scales sqrt(abar) so that its last entry is 0 and its first stays (Lin et al. 2024, algorithm 1).

    Args:
        beta: (T,) fp64.

    Returns:
        (T,) fp64, the last entry 1.
    """
    root = (1 - beta).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    abar = root.square()
    return 1 - torch.cat((abar[:1], abar[1:] / abar[:-1]))


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """Values of each sample (B,), or of each frame (B, T), shaped to broadcast over `like` (B, C, T, ...)."""
    if values.ndim == 2:
        return values.view(len(values), 1, -1, *(1,) * (like.ndim - 3))
    return values.view(-1, *(1,) * (like.ndim - 1))


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """table[t] with t (B,), or (B, T) of every frame, shaped to broadcast over `like` (B, C, T, ...)."""
    return broadcast(table[t], like)


def _without_first(variance: Tensor) -> Tensor:
    """A table of variances whose first entry, zero, is the second's (as in iDDPM and ADM)."""
    return torch.cat((variance[1:2], variance[1:])) if len(variance) > 1 else variance


class DiffusionSchedule(FullPrecisionBuffers):
    """The tables of a discrete schedule; non-persistent buffers, as they are constants, and always fp32.

    Posterior tables: q(x_{t-1} | x_t, x_0) has mean coef1 x_0 + coef2 x_t and variance
    beta_t (1 - abar_{t-1})/(1 - abar_t) (Ho et al. 2020, equations 6 and 7).

    Args:
        kind: cosine (beta cut at .9999), cosine_iddpm (.999), linear or scaled_linear.
        steps: Steps T.
        beta_ends: First and last beta of a linear or scaled linear schedule, instead of the usual ones.
        zero_snr: Rescale so that nothing is left of the data at the last step (`zero_terminal_snr`).
        beta: Betas (T,) fp64 of another schedule, instead of the named one.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    log_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_log_variance: Tensor
    log_betas: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor
    snr: Tensor

    def __init__(
        self,
        kind: ScheduleKind = "cosine",
        steps: int = 1000,
        beta_ends: tuple[float, float] | None = None,
        zero_snr: bool = False,
        beta: Tensor | None = None,
    ) -> None:
        super().__init__()
        if beta is None:
            beta = betas(kind, steps, beta_ends)
            beta = zero_terminal_snr(beta) if zero_snr else beta
        self.kind, self.steps = kind, len(beta)
        alpha = 1 - beta
        self.exact_alphas_cumprod = alpha.cumprod(0)
        abar = self.exact_alphas_cumprod
        previous = torch.cat((abar.new_ones(1), abar[:-1]))
        variance = beta * (1 - previous) / (1 - abar)
        tables = {
            "betas": beta,
            "alphas_cumprod": abar,
            "alphas_cumprod_prev": previous,
            "sqrt_alphas_cumprod": abar.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - abar).log(),
            "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
            "posterior_variance": variance,
            # the variance of the last step (t = 0) is zero
            "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
            "posterior_log_variance": _without_first(variance).clamp(min=1e-20).log(),
            "log_betas": torch.cat((_without_first(variance)[:1], beta[1:])).clamp(min=1e-20).log(),
            "posterior_mean_coef1": beta * previous.sqrt() / (1 - abar),
            "posterior_mean_coef2": (1 - previous) * alpha.sqrt() / (1 - abar),
            "snr": abar / (1 - abar),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t) for t (B,), shaped to broadcast over `like`."""
        return gather(self.sqrt_alphas_cumprod, t, like), gather(self.sqrt_one_minus_alphas_cumprod, t, like)

    @property
    def vlb_weights(self) -> Tensor:
        """Weights (T,) of the squared error of eps that give the variational bound (Ho et al. 2020, equation 12).

        beta^2 / (2 posterior variance alpha (1 - abar)), but the first, which is infinite, is the second (as in latent
        diffusion's code, which logs this bound).
        """
        spread = 2 * self.posterior_variance * (1 - self.betas) * (1 - self.alphas_cumprod)
        weights = self.betas**2 / spread
        return torch.cat((weights[1:2], weights[1:]))

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(x_{t-1} | x_t, x_0), the latter cut at log 1e-20."""
        mean = gather(self.posterior_mean_coef1, t, x_t) * x0 + gather(self.posterior_mean_coef2, t, x_t) * x_t
        return mean, gather(self.posterior_log_variance_clipped, t, x_t)
