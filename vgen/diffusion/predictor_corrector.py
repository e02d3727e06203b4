"""Samplers of score SDE: predictor-corrector, annealed Langevin, and the ODE (Song et al. 2021, section 4)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vgen.diffusion.continuous import ContinuousDiffusion
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.ode import ode_sample
from vgen.diffusion.samplers import DenoiseFn, Sampler
from vgen.errors import UserError


class PredictorCorrector(Sampler):
    """At each of N times from 1 to `end`: corrector steps, then a predictor step (algorithm 1); the mean at the end.

    Released settings: VE reverse_diffusion and langevin with snr 0.16; VP and sub-VP euler_maruyama alone with end
    1e-3; NCSN predictor none and annealed_langevin, 5 steps with snr 0.176.

    Args:
        steps: N.
        predictor: The kind of step along the reverse SDE.
        corrector: The kind of step that stays at its time.
        snr: Of the corrector, r in appendix G.
        corrector_steps: Corrector steps at each time.
        end: Last time; the released VE models have 1e-5, the others 1e-3.
        joint_norms: Langevin's step size from norms that are averaged over the batch, as released: a clip then depends
            on its batch.
    """

    def __init__(
        self,
        steps: int = 1000,
        predictor: Literal["none", "euler_maruyama", "reverse_diffusion", "ancestral"] = "reverse_diffusion",
        corrector: Literal["none", "langevin", "annealed_langevin"] = "langevin",
        snr: float = 0.16,
        corrector_steps: int = 1,
        end: float = 1e-5,
        joint_norms: bool = False,
    ) -> None:
        if predictor == "none" and corrector == "none":
            raise UserError("with neither predictor nor corrector nothing is sampled", "sampler")
        self.steps, self.predictor, self.corrector = steps, predictor, corrector
        self.snr, self.corrector_steps, self.end, self.joint_norms = snr, corrector_steps, end, joint_norms

    def calls(self, process: ContinuousDiffusion) -> int:
        """One for each step of either."""
        return self.steps * (self._corrections + (self.predictor != "none"))

    @property
    def _corrections(self) -> int:
        return 0 if self.corrector == "none" else self.corrector_steps

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: ContinuousDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""
        sde, score_fn, drawn = process.sde(self.steps), process.score_fn(denoise_fn), 0
        if self.predictor == "ancestral" and not sde.has_table:
            raise UserError("ancestral sampling needs VP or VE, sub-VP has no Markov chain", "sampler.predictor")
        x = mean = noise(0, shape) * process.schedule.prior_std
        for time in torch.linspace(1.0, self.end, self.steps, device=x.device).to(x.dtype):
            t = time.expand(len(x))
            for _ in range(self._corrections):
                drawn += 1
                z = noise(drawn, shape)
                if self.corrector == "langevin":
                    x, mean = sde.langevin(score_fn, x, t, z, self.snr, each=not self.joint_norms)
                else:
                    x, mean = sde.annealed_langevin(score_fn, x, t, z, self.snr)
            if self.predictor != "none":
                drawn += 1
                x, mean = getattr(sde, self.predictor)(score_fn, x, t, noise(drawn, shape))
        return process.threshold(mean)


class ProbabilityFlow(Sampler):
    """Integrates the probability-flow ODE by Runge-Kutta 4(5) with steps of its own choice (section 4.3).

    Args:
        tolerance: Relative and absolute.
        end: Last time.
    """

    def __init__(self, tolerance: float = 1e-5, end: float = 1e-3) -> None:
        self.tolerance, self.end = tolerance, end

    def calls(self, process: ContinuousDiffusion) -> int:
        """At least one step; how many is known afterwards."""
        return 8

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: ContinuousDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""
        start = noise(0, shape) * process.schedule.prior_std
        found, _ = ode_sample(process.sde(), process.score_fn(denoise_fn), start, self.end, self.tolerance)
        return process.threshold(found)
