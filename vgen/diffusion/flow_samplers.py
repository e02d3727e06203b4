"""Sampling along the straight lines of flow matching."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from vgen.diffusion.continuous import ContinuousDiffusion
from vgen.diffusion.continuous_schedules import Flow
from vgen.diffusion.flow import shifted
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.samplers import DenoiseFn, Sampler
from vgen.errors import UserError


class FlowSampler(Sampler):
    """Integrates dx/dt = eps - x0 from t = 1 to 0 in equal steps, or in steps that are shifted towards noise.

    The times are always written out: the default of diffusers' scheduler of this kind spends its last step on nothing
    and shifts the lower end twice.

    Args:
        steps: N.
        solver: euler takes N calls, heun 2N - 1.
        shift: See `shifted`.
    """

    def __init__(self, steps: int = 50, solver: Literal["euler", "heun"] = "euler", shift: float = 1.0) -> None:
        self.steps, self.solver, self.shift = steps, solver, shift

    def calls(self, process: ContinuousDiffusion) -> int:
        """N, or 2N - 1."""
        return self.steps if self.solver == "euler" else 2 * self.steps - 1

    def times(self) -> list[float]:
        """1, ..., 0: N + 1 times."""
        return shifted(torch.linspace(1, 0, self.steps + 1, dtype=torch.float64), self.shift).tolist()

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: ContinuousDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""
        if not isinstance(process.schedule, Flow):
            raise UserError("this sampler goes along straight lines", "sampler", "diffusion.schedule: Flow")

        def velocity(x: Tensor, time: float) -> Tensor:
            t = process.full(time, x)
            x0, eps = process.x0_eps(denoise_fn(x, t), x, t, rederive=process.threshold.kind != "none")
            return eps - x0

        x, times = noise(0, shape), self.times()
        for i, (now, following) in enumerate(pairwise(times)):
            slope = velocity(x, now)
            ahead = x + (following - now) * slope
            if self.solver == "heun" and i < self.steps - 1:
                ahead = x + (following - now) * 0.5 * (slope + velocity(ahead, following))
            x = ahead
        return x
