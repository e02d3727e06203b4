"""EDM's stochastic Heun sampler and the design space around it (Karras et al. 2022, algorithms 1 and 2).

The state is fp64, the network's input fp32. Noise is drawn at every step, also where none is added, so that a clip's
stream does not depend on the settings.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vgen.diffusion.continuous import ContinuousDiffusion
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.preconditioning import iddpm_sigmas, vp_sigma, vp_time
from vgen.diffusion.samplers import DenoiseFn, Sampler

Kind = Literal["edm", "vp", "ve", "iddpm"]
#: D(x; sigma): x (B, ...) fp64, sigma a number (0-d fp64) -> x0 (B, ...).
Denoiser = Callable[[Tensor, Tensor], Tensor]
_EPSILON_S = 1e-3  # the end of VP's times


@dataclass(frozen=True)
class Levels:
    """Noise levels of N steps, and the curve sigma(t), s(t) between them (table 1 of the paper).

    Args:
        discretization: Where the levels are: edm is equal steps of sigma^(1/rho).
        sigma_min: Lowest level; None is that of the discretisation's own paper.
        sigma_max: Highest, likewise.
        rho: Of edm; larger puts more steps near the data.
        schedule: sigma(t): linear, or VP's or VE's.
        scaling: s(t): none is 1, vp is 1/sqrt(1 + sigma^2).
    """

    discretization: Kind = "edm"
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float = 7.0
    schedule: Literal["linear", "vp", "ve"] = "linear"
    scaling: Literal["none", "vp"] = "none"

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        ends = torch.tensor([_EPSILON_S, 1.0], dtype=torch.float64)
        low, high = {
            "vp": tuple(vp_sigma(ends).tolist()),
            "ve": (0.02, 100.0),
            "iddpm": (0.002, 81.0),
            "edm": (0.002, 80.0),
        }[self.discretization]
        return (
            low if self.sigma_min is None else self.sigma_min,
            high if self.sigma_max is None else self.sigma_max,
        )

    @property
    def _vp(self) -> tuple[float, float]:
        """beta_d and beta_min of the VP curve through both bounds."""
        low, high = (math.log(each**2 + 1) for each in self.bounds)
        slope = 2 * (low / _EPSILON_S - high) / (_EPSILON_S - 1)
        return slope, high - 0.5 * slope

    def sigmas(self, steps: int) -> Tensor:
        """Descending levels, (steps,) fp64, without the final zero."""
        share = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
        low, high = self.bounds
        if self.discretization == "vp":
            return vp_sigma(1 + share * (_EPSILON_S - 1), *self._vp)
        if self.discretization == "ve":
            return (high**2 * (low**2 / high**2) ** share).sqrt()
        if self.discretization == "iddpm":
            table = iddpm_sigmas().double()
            table = table[(table >= low) & (table <= high)]
            return table[((len(table) - 1) * share).round().long()]
        return (high ** (1 / self.rho) + share * (low ** (1 / self.rho) - high ** (1 / self.rho))) ** self.rho

    def sigma(self, t: Tensor) -> Tensor:
        """The noise level at t."""
        if self.schedule == "vp":
            return vp_sigma(t, *self._vp)
        return t.sqrt() if self.schedule == "ve" else t

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of `sigma`."""
        if self.schedule == "vp":
            return vp_time(sigma, *self._vp)
        return sigma**2 if self.schedule == "ve" else sigma

    def sigma_slope(self, t: Tensor) -> Tensor:
        """The derivative of sigma(t)."""
        if self.schedule == "vp":
            slope, least = self._vp
            sigma = self.sigma(t)
            return 0.5 * (least + slope * t) * (sigma + 1 / sigma)
        return 0.5 / t.sqrt() if self.schedule == "ve" else torch.ones_like(t)

    def scale(self, t: Tensor) -> Tensor:
        """The scale s at t."""
        return (1 + self.sigma(t) ** 2) ** -0.5 if self.scaling == "vp" else torch.ones_like(t)

    def scale_slope(self, t: Tensor) -> Tensor:
        """The derivative of s(t)."""
        if self.scaling == "none":
            return torch.zeros_like(t)
        return -self.sigma(t) * self.sigma_slope(t) * self.scale(t) ** 3

    def direction(self, x: Tensor, t: Tensor, denoiser: Denoiser) -> Tensor:
        """dx/dt of the probability-flow ODE (algorithm 1, line 4)."""
        sigma, slope, s = self.sigma(t), self.sigma_slope(t), self.scale(t)
        denoised = denoiser(x / s, sigma).to(x.dtype)
        return (slope / sigma + self.scale_slope(t) / s) * x - slope * s / sigma * denoised


class KarrasSampler(Sampler):
    """Heun's or Euler's method between noise levels, with noise that is added and taken away again ("churn").

    EDM's settings: 18 steps for CIFAR-10, 40 for FFHQ and AFHQ without churn; ImageNet-64: 256, churn 40 between 0.05
    and 50, noise 1.003.

    Args:
        steps: Noise levels N.
        solver: heun takes 2N - 1 calls, euler N.
        levels: Which levels, and the curve between them.
        churn: S_churn, 0 for a deterministic sampler.
        churn_min: S_min, lowest level with churn.
        churn_max: S_max; None: no bound.
        churn_noise: S_noise, standard deviation of the noise.
    """

    def __init__(
        self,
        steps: int = 18,
        solver: Literal["heun", "euler"] = "heun",
        levels: Levels = Levels(),
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float | None = None,
        churn_noise: float = 1.0,
    ) -> None:
        self.steps, self.solver = steps, solver
        self.levels = Levels(**levels) if isinstance(levels, dict) else levels
        self.churn, self.churn_min, self.churn_max, self.churn_noise = churn, churn_min, churn_max, churn_noise

    def calls(self, process: ContinuousDiffusion) -> int:
        """N, or 2N - 1."""
        return self.steps if self.solver == "euler" else 2 * self.steps - 1

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: ContinuousDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            t = process.schedule.t_from_log_snr(-2 * sigma.log()).expand(len(x))
            alpha, _ = process.alpha_sigma(t, x)
            seen, t = (alpha * x).float(), t.float()
            return process.x0_eps(denoise_fn(seen, t), seen, t)[0]

        return self.run(denoiser, noise(0, shape), lambda i: noise(i + 1, shape)).float()

    def run(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        noise: Callable[[int], Tensor],
        rounded: Callable[[Tensor], Tensor] = lambda sigma: sigma,
    ) -> Tensor:
        """The sampler on its own.

        Args:
            denoiser: D(x; sigma).
            latents: Standard normal (B, ...).
            noise: Standard normal noise of step i.
            rounded: Moves a noise level to the nearest that the network knows.

        Returns:
            (B, ...) fp64.
        """
        levels, highest = self.levels, math.inf if self.churn_max is None else self.churn_max
        times = levels.time(rounded(levels.sigmas(self.steps).to(latents.device)))
        times = torch.cat((times, torch.zeros_like(times[:1])))
        x = latents.double() * (levels.sigma(times[0]) * levels.scale(times[0]))
        for i in range(self.steps):
            now, following = times[i], times[i + 1]
            sigma, drawn = levels.sigma(now), noise(i)
            churns = self.churn_min <= float(sigma) <= highest
            gamma = min(self.churn / self.steps, math.sqrt(2) - 1) if churns else 0.0
            hat = levels.time(rounded(sigma + gamma * sigma))
            added = (levels.sigma(hat) ** 2 - sigma**2).clamp(min=0).sqrt() * levels.scale(hat) * self.churn_noise
            x = levels.scale(hat) / levels.scale(now) * x + added * drawn
            step = following - hat
            slope = levels.direction(x, hat, denoiser)
            ahead = x + step * slope
            if self.solver == "heun" and i < self.steps - 1:
                ahead = x + step * 0.5 * (slope + levels.direction(ahead, following, denoiser))
            x = ahead
        return x
