"""Score SDE (Song et al. 2021): forward and reverse SDE, their discretisations, and the score of a network's output.

A *score function* maps x (B, ...) and t (B,) to the score of p_t, of the shape of x.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vgen.diffusion.continuous_schedules import VE, VP, SubVP
from vgen.diffusion.schedules import broadcast

ScoreFn = Callable[[Tensor, Tensor], Tensor]
#: (x, label (B,)) -> the network's raw output.
ModelFn = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SDE:
    """A schedule, cut into `steps` where a method needs steps.

    Args:
        schedule: VP, SubVP or VE.
        steps: Number of steps N.
        continuous: The network was trained on times between the steps too, which changes what it is told.
    """

    schedule: VP | SubVP | VE
    steps: int = 1000
    continuous: bool = True

    @cached_property
    def betas(self) -> Tensor:
        """DDPM's betas of VP: (N,) fp32."""
        low, high = self._vp.beta_min, self._vp.beta_max
        return torch.linspace(low / self.steps, high / self.steps, self.steps)

    @cached_property
    def abar(self) -> Tensor:
        """Cumulative products of 1 - beta, (N,) fp32."""
        return (1 - self.betas).cumprod(0)

    @cached_property
    def sigmas(self) -> Tensor:
        """NCSN's noise levels of VE, ascending: (N,) fp32."""
        assert isinstance(self.schedule, VE)
        low, high = math.log(self.schedule.sigma_min), math.log(self.schedule.sigma_max)
        return torch.linspace(low, high, self.steps).exp()

    @property
    def _vp(self) -> VP:
        assert isinstance(self.schedule, VP)
        return self.schedule

    @property
    def exploding(self) -> bool:
        """Whether this is the VE SDE."""
        return isinstance(self.schedule, VE)

    @property
    def has_table(self) -> bool:
        """Whether there is a discrete Markov chain behind it: not for sub-VP."""
        return not isinstance(self.schedule, SubVP)

    def index(self, t: Tensor) -> Tensor:
        """The step that a time belongs to, int64."""
        return (t * (self.steps - 1)).long()

    def label(self, t: Tensor) -> Tensor:
        """What the network is told: 999 t or t (N - 1), sigma(t), or NCSN's index, from the highest level down."""
        if not self.exploding:
            return t * 999 if self.continuous or not self.has_table else t * (self.steps - 1)
        return self.schedule.sigma(t) if self.continuous else ((1 - t) * (self.steps - 1)).round().long()

    def score(self, output: Tensor, t: Tensor) -> Tensor:
        """The score from a network's output: VE's is that already, the others' is -sigma times it."""
        if self.exploding:
            return output
        if self.continuous or not self.has_table:
            sigma = self.schedule.sigma(t)
        else:
            sigma = (1 - self.abar.to(t.device)[(t * (self.steps - 1)).long()]).sqrt()
        return -output / broadcast(sigma, output)

    def score_fn(self, model: ModelFn) -> ScoreFn:
        """The score function of a network with score SDE's labels."""
        return lambda x, t: self.score(model(x, self.label(t)), t)

    def marginal(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of x_t (B, ...) and its standard deviation (B,)."""
        return broadcast(self.schedule.alpha(t), x0) * x0, self.schedule.sigma(t)

    def prior_log_density(self, z: Tensor) -> Tensor:
        """Log density of the prior, (B,) nats."""
        std = self.schedule.prior_std
        count = z[0].numel()
        return -count / 2 * math.log(2 * math.pi * std**2) - z.square().flatten(1).sum(1) / (2 * std**2)

    def discretised(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Scale f and G of one step x + f x + G z of the forward chain at t, each (B,)."""
        if self.exploding:
            sigmas = self.sigmas.to(t.device)
            now, before = sigmas[self.index(t)], self._before(t)
            return torch.zeros_like(t), (now**2 - before**2).sqrt()
        if self.has_table:
            beta = self.betas.to(t.device)[self.index(t)]
            return (1 - beta).sqrt() - 1, beta.sqrt()
        return self.schedule.drift(t) / self.steps, self.schedule.diffusion(t) * math.sqrt(1 / self.steps)

    def _before(self, t: Tensor) -> Tensor:
        """VE's level of the step before, 0 at the first."""
        index = self.index(t)
        return torch.where(index == 0, 0.0, self.sigmas.to(t.device)[(index - 1).clamp(min=0)])

    def reverse_drift(self, score_fn: ScoreFn, x: Tensor, t: Tensor, ode: bool = False) -> Tensor:
        """Drift of the reverse SDE, or of the probability-flow ODE (equations 6 and 13)."""
        drift = broadcast(self.schedule.drift(t), x) * x
        return drift - broadcast(self.schedule.diffusion(t) ** 2, x) * score_fn(x, t) * (0.5 if ode else 1.0)

    def reverse_discretised(self, score_fn: ScoreFn, x: Tensor, t: Tensor, ode: bool = False) -> tuple[Tensor, Tensor]:
        """F (B, ...) and G (B,) of one step x - f + G z backwards (appendix E)."""
        scale, g = self.discretised(t)
        f = broadcast(scale, x) * x - broadcast(g**2, x) * score_fn(x, t) * (0.5 if ode else 1.0)
        return f, torch.zeros_like(g) if ode else g

    # Predictors and correctors: (x with noise, x without) -------------------------------------------------------------

    def euler_maruyama(self, score_fn: ScoreFn, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the reverse SDE over 1/N."""
        mean = x - self.reverse_drift(score_fn, x, t) / self.steps
        return mean + broadcast(self.schedule.diffusion(t), x) * math.sqrt(1 / self.steps) * noise, mean

    def reverse_diffusion(self, score_fn: ScoreFn, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The reverse of the forward chain's step (appendix E)."""
        f, g = self.reverse_discretised(score_fn, x, t)
        return x - f + broadcast(g, x) * noise, x - f

    def ancestral(self, score_fn: ScoreFn, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Ancestral sampling of DDPM, and of NCSN's noise levels (appendix F)."""
        if self.exploding:
            now, before = self.sigmas.to(t.device)[self.index(t)], self._before(t)
            mean = x + broadcast(now**2 - before**2, x) * score_fn(x, t)
            return mean + broadcast((before**2 * (now**2 - before**2) / now**2).sqrt(), x) * noise, mean
        beta = broadcast(self.betas.to(t.device)[self.index(t)], x)
        mean = (x + beta * score_fn(x, t)) / (1 - beta).sqrt()
        return mean + beta.sqrt() * noise, mean

    def langevin(
        self, score_fn: ScoreFn, x: Tensor, t: Tensor, noise: Tensor, snr: float, each: bool = False
    ) -> tuple[Tensor, Tensor]:
        """A Langevin step whose size is set by the norms of noise and score (appendix G).

        Args:
            score_fn: The score function.
            x: (B, ...).
            t: (B,).
            noise: Standard normal, like x.
            snr: Wanted ratio r of the norms.
            each: Norms of each sample; otherwise their means over the batch, as released, so that a sample depends on
                its batch.
        """
        score = score_fn(x, t)
        norms = [value.flatten(1).norm(dim=1) for value in (noise, score)]
        ratio = norms[0] / norms[1] if each else norms[0].mean() / norms[1].mean()
        return self._langevin_step(x, score, noise, 2 * self._scale(t) * (snr * ratio) ** 2)

    def annealed_langevin(
        self, score_fn: ScoreFn, x: Tensor, t: Tensor, noise: Tensor, snr: float
    ) -> tuple[Tensor, Tensor]:
        """A Langevin step whose size is set by the noise level (NCSN; Song & Ermon 2019, algorithm 1)."""
        return self._langevin_step(x, score_fn(x, t), noise, 2 * self._scale(t) * (snr * self.schedule.sigma(t)) ** 2)

    def _scale(self, t: Tensor) -> Tensor:
        """1 - beta of the step of VP, 1 of the others; the released correctors stop with an error on sub-VP."""
        if self.exploding or not self.has_table:
            return torch.ones_like(t)
        return 1 - self.betas.to(t.device)[self.index(t)]

    @staticmethod
    def _langevin_step(x: Tensor, score: Tensor, noise: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        mean = x + broadcast(size, x) * score
        return mean + broadcast((2 * size).sqrt(), x) * noise, mean
