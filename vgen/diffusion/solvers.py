"""High-order solvers of diffusers, fed with our x0: prediction type and threshold stay in one place."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.samplers import DenoiseFn, Sampler
from vgen.errors import UserError, did_you_mean

Scheduler = Literal["DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "PNDM", "LCM"]
#: Schedulers of diffusers in whose place there is something of ours, with what is wrong with them.
_OURS = {
    "DDPM": "its variances fixed_large_log and learned give NaN; use DDPM or RespacedDDPM with diffusion.variance",
    "DDIM": "it moves along another eps than the thresholded x0's unless told otherwise; use DDIM",
    "FlowMatchEulerDiscrete": "its default times shift twice; use FlowSampler",
    "ScoreSdeVe": "use PredictorCorrector",
    "KarrasVe": "use KarrasSampler",
    "EDMEuler": "use KarrasSampler with solver: euler",
}


def _integrate(
    scheduler: Any,
    steps: int,
    denoise_fn: DenoiseFn,
    shape: Sequence[int],
    noise: NoiseSource,
    process: GaussianDiffusion,
    stochastic: bool = False,
    takes_eps: bool = False,
) -> Tensor:
    """Runs a scheduler that takes x0 (`prediction_type="sample"`), or eps; it keeps a history, so one per run."""
    x = noise(0, shape)
    scheduler.set_timesteps(steps)
    for i, t in enumerate(scheduler.timesteps.tolist()):
        times = process.full(int(t), x)
        x0, eps = process.x0_eps(denoise_fn(x, times), x, times, rederive=takes_eps)
        extra = {"variance_noise": noise(i + 1, shape)} if stochastic else {}
        x = scheduler.step(eps if takes_eps else x0, t, x, return_dict=False, **extra)[0]
    return x


def _common(process: GaussianDiffusion) -> dict[str, Any]:
    """Arguments that both schedulers need."""
    return {
        "num_train_timesteps": process.steps,
        "trained_betas": process.schedule.betas.double().cpu().numpy(),
        "prediction_type": "sample",
        "thresholding": False,
    }


class DPMSolverPP(Sampler):
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


class UniPC(Sampler):
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


class DiffusersSampler(Sampler):
    """Another scheduler of diffusers, by name.

    Args:
        scheduler: Name of its class, without `Scheduler`.
        steps: Network calls (PNDM: one more).
        arguments: Of its constructor; schedule and prediction are the process's.
    """

    def __init__(
        self, scheduler: Scheduler = "DEISMultistep", steps: int = 20, arguments: dict[str, Any] | None = None
    ) -> None:
        self.scheduler, self.steps, self.arguments = scheduler, steps, dict(arguments or {})
        refuse_broken(scheduler, self.arguments)

    def calls(self, process: GaussianDiffusion) -> int:
        """The number of steps."""
        return self.steps + (self.scheduler == "PNDM")

    def sample(
        self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: GaussianDiffusion
    ) -> Tensor:
        """See `Sampler.sample`."""
        import diffusers.schedulers as all_of_them  # slow import, needed here alone

        arguments = _common(process) | self.arguments
        if self.scheduler == "PNDM":  # knows eps and v alone, and no threshold; the first steps are Euler's
            del arguments["thresholding"]
            arguments |= {"prediction_type": "epsilon", "skip_prk_steps": True}
        scheduler = getattr(all_of_them, f"{self.scheduler}Scheduler")(**arguments)
        if self.scheduler == "LCM":
            return self._consistency(scheduler, denoise_fn, shape, noise, process)
        takes_eps = self.scheduler == "PNDM"
        return _integrate(scheduler, self.steps, denoise_fn, shape, noise, process, takes_eps=takes_eps)

    def _consistency(
        self,
        scheduler: Any,
        denoise_fn: DenoiseFn,
        shape: Sequence[int],
        noise: NoiseSource,
        process: GaussianDiffusion,
    ) -> Tensor:
        """LCM's loop: to x0 and back to noise; its scheduler draws from a global generator, so only its times are used.

        The boundary scalings of distilled networks are those of `LCMScheduler`.
        """
        scheduler.set_timesteps(self.steps)
        x, times = noise(0, shape), [int(t) for t in scheduler.timesteps]
        for i, time in enumerate(times):
            t = process.full(time, x)
            x0, _ = process.x0_eps(denoise_fn(x, t), x, t)
            skip, out = scheduler.get_scalings_for_boundary_condition_discrete(time)
            clean = out * x0 + skip * x
            if i == len(times) - 1:
                return clean
            x = process.q_sample(clean, process.full(times[i + 1], x), noise(i + 1, shape))
        return x


def refuse_broken(scheduler: str, arguments: Mapping[str, Any]) -> None:
    """Stops at settings of diffusers that are known to give NaN or other numbers than the paper's.

    Raises:
        UserError: Naming the setting and what works.
    """
    known = get_args(Scheduler)
    if scheduler not in known:
        plain = scheduler.removesuffix("Scheduler")
        hint = _OURS.get(plain) or did_you_mean(plain, known) or f"there: {', '.join(known)}"
        raise UserError(f"scheduler {scheduler!r} is not taken from diffusers", "sampler.scheduler", hint)
    if taken := {"prediction_type", "trained_betas", "num_train_timesteps", "beta_schedule"} & set(arguments):
        raise UserError(f"{', '.join(sorted(taken))} come from the process", "sampler.arguments", "leave them out")
    ends_at_zero = arguments.get("final_sigmas_type", "zero") == "zero"
    if scheduler == "UniPCMultistep" and arguments.get("solver_type", "bh2") == "bh1" and ends_at_zero:
        raise UserError(
            "UniPC's B(h) = h gives NaN where the last noise level is zero", "sampler.arguments.solver_type"
        )
    algorithm = str(arguments.get("algorithm_type", "dpmsolver++"))
    if scheduler.startswith("DPMSolver") and not algorithm.endswith("++") and ends_at_zero:
        hint = "final_sigmas_type: sigma_min, or dpmsolver++"
        raise UserError(f"{algorithm} cannot end at noise level zero", "sampler.arguments.algorithm_type", hint)
