"""The sampler of VDM: ancestral steps of any length with interpolated variance, and Langevin corrections."""

from collections.abc import Sequence

from torch import Tensor

from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.samplers import DDIM, DenoiseFn, Sampler


class Ancestral(Sampler):
    """Ancestral sampling over fewer steps than the schedule has (Ho et al. 2022, equations 4 and 5).

    With variance 0 and all steps it is `DDPM`.

    Args:
        steps: Steps, at evenly spaced times; twice as many network calls with a corrector.
        variance: gamma: 0 takes the posterior's (smallest) variance, 1 the forward process's (largest), between them
            logarithms are interpolated. Paper: 0.1 (UCF-101), 0.0 (BAIR, Kinetics), 0.3 (text).
        corrector: delta of a Langevin step after every step; 0: none. Paper: 0.1 (BAIR, Kinetics).
    """

    def __init__(self, steps: int = 256, variance: float = 0.0, corrector: float = 0.0) -> None:
        if not 0 <= variance <= 1:
            raise ValueError(f"the variance is interpolated between 0 and 1, not at {variance}")
        self.steps, self.variance, self.corrector = steps, variance, corrector

    def calls(self, process: GaussianDiffusion) -> int:
        """The number of steps, and of corrections."""
        return 2 * self.steps - 1 if self.corrector else self.steps

    def times(self, total: int) -> list[tuple[int, int]]:
        """(time, next time) of each step; the last next time is -1: clean data."""
        if self.steps == total:
            return [(t, t - 1) for t in reversed(range(total))]
        return DDIM(self.steps).times(total)

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: GaussianDiffusion
    ) -> Tensor:
        """See `Sampler.sample`; a correction takes its noise from behind all steps."""
        abar = process.schedule.alphas_cumprod.double()
        x = noise(0, shape)
        for i, (t, s) in enumerate(self.times(process.steps)):
            times = process.full(t, x)
            x0, _ = process.x0_eps(denoise_fn(x, times), x, times)
            if s < 0:
                return x0
            # e^(lambda_t - lambda_s) with lambda = log(abar / (1 - abar))
            ratio = (abar[t] / (1 - abar[t])) / (abar[s] / (1 - abar[s]))
            kept = (ratio * (abar[s] / abar[t]).sqrt()).to(x.dtype)
            mean = kept * x + ((1 - ratio) * abar[s].sqrt()).to(x.dtype) * x0
            smallest, largest = (1 - ratio) * (1 - abar[s]), (1 - ratio) * (1 - abar[t])
            deviation = (smallest ** (1 - self.variance) * largest**self.variance).sqrt()
            x = mean + deviation.to(x.dtype) * noise(i + 1, shape)
            if self.corrector:
                times = process.full(s, x)
                _, eps = process.x0_eps(denoise_fn(x, times), x, times)
                sigma = (1 - abar[s]).sqrt().to(x.dtype)
                extra = noise(self.steps + i + 1, shape)
                x = x - 0.5 * self.corrector * sigma * eps + self.corrector**0.5 * sigma * extra
        return x
