"""High-order solvers of diffusers, fed with our x0: prediction type and threshold stay in one place."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.samplers import DenoiseFn, Sampler


def _integrate(
    scheduler: Any,
    steps: int,
    denoise_fn: DenoiseFn,
    shape: Sequence[int],
    noise: NoiseSource,
    process: GaussianDiffusion,
    stochastic: bool = False,
) -> Tensor:
    """Runs a multistep scheduler that takes x0 (`prediction_type="sample"`); it keeps a history, so one per run."""
    x = noise(0, shape)
    scheduler.set_timesteps(steps)
    for i, t in enumerate(scheduler.timesteps.tolist()):
        times = process.full(int(t), x)
        x0, _ = process.x0_eps(denoise_fn(x, times), x, times)
        extra = {"variance_noise": noise(i + 1, shape)} if stochastic else {}
        x = scheduler.step(x0, t, x, return_dict=False, **extra)[0]
    return x


def _common(process: GaussianDiffusion) -> dict[str, Any]:
    """Arguments that both schedulers need."""
    return {
        "num_train_timesteps": process.steps,
        "trained_betas": process.schedule.betas.double().cpu().numpy(),
        "prediction_type": "sample",
        "thresholding": False,
    }


class DPMSolverPP(Sampler[GaussianDiffusion]):
    """DPM-Solver++ multistep (Lu et al. 2022), by `diffusers`' DPMSolverMultistepScheduler.

    Args:
        steps: Network calls.
        order: 1 to 3; 2 for guided sampling.
        sde: The stochastic form, SDE-DPM-Solver++.
    """

    def __init__(self, steps: int = 20, order: int = 2, sde: bool = False) -> None:
        self.steps, self.order, self.sde = steps, order, sde

    def calls(self, process: GaussianDiffusion) -> int:
        """The number of steps."""
        return self.steps

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: GaussianDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""
        from diffusers.schedulers import DPMSolverMultistepScheduler  # slow import, needed here alone

        algorithm = "sde-dpmsolver++" if self.sde else "dpmsolver++"
        scheduler = DPMSolverMultistepScheduler(algorithm_type=algorithm, solver_order=self.order, **_common(process))
        return _integrate(scheduler, self.steps, denoise_fn, shape, noise, process, stochastic=self.sde)


class UniPC(Sampler[GaussianDiffusion]):
    """UniPC predictor-corrector (Zhao et al. 2023), by `diffusers`; B(h) = exp(h) - 1, as the other form gives NaN.

    Args:
        steps: Network calls.
        order: 1 to 3.
    """

    def __init__(self, steps: int = 20, order: int = 2) -> None:
        self.steps, self.order = steps, order

    def calls(self, process: GaussianDiffusion) -> int:
        """The number of steps."""
        return self.steps

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: GaussianDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""
        from diffusers.schedulers import UniPCMultistepScheduler  # slow import, needed here alone

        scheduler = UniPCMultistepScheduler(
            solver_order=self.order, solver_type="bh2", predict_x0=True, **_common(process)
        )
        return _integrate(scheduler, self.steps, denoise_fn, shape, noise, process)
