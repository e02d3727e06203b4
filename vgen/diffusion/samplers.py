"""Samplers of discrete diffusion: configured by plain data, without state between runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from vgen.configurable import Configurable
from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.respacing import space_timesteps
from vgen.errors import UserError, did_you_mean

#: (x_t, t (B,) int64) -> the network's raw output, guidance done.
DenoiseFn = Callable[[Tensor, Tensor], Tensor]


class Sampler(Configurable, ABC):
    """Turns noise into data with a trained denoiser.

    Each takes one kind of process: `GaussianDiffusion`, in steps, or `ContinuousDiffusion`.

    Attributes:
        parallel: Whether the denoiser is given several states of each clip at once; see `Picard`.
    """

    parallel: ClassVar[bool] = False

    configuration: dict[str, Any] = {}  # noqa: RUF012  replaced in each instance that has arguments

    def changed(self, options: Mapping[str, Any]) -> Self:
        """A sampler of the same class with some arguments replaced, such as `{"steps": 20}`."""
        for name in options:
            if name not in self.configuration:
                known = ", ".join(self.configuration) or "no options"
                hint = did_you_mean(name, self.configuration)
                raise UserError(f"{type(self).__name__} has no option {name!r}, it takes {known}", hint=hint)
        return type(self)(**(self.configuration | dict(options)))

    def chosen(self, options: Mapping[str, Any]) -> "Sampler":
        """What the options of a call make of a model's own sampler.

        Args:
            options: `sampler` (an object) takes this one's place; the others are arguments of the sampler.

        Raises:
            UserError: The sampler has no such argument.
        """
        arguments = dict(options)
        sampler: Sampler = arguments.pop("sampler", self)
        return sampler.changed(arguments)

    @abstractmethod
    def sample(self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: Any) -> Tensor:
        """Generates a batch.

        Args:
            denoise_fn: The network with its conditions and guidance.
            shape: (B, ...) of the result.
            noise: Step 0 gives the start, step i the noise of the i-th transition.
            process: Schedule, prediction type and threshold.

        Returns:
            x0 of `shape`, fp32, on the device of the noise.
        """

    @abstractmethod
    def calls(self, process: Any) -> int:
        """How often the network runs."""


@dataclass(frozen=True)
class Transition:
    """One step of a sampler: the network is called once, and what it says moves the data.

    Args:
        time: What the network is told.
        move: (network output, x, noise) -> the next x.
        noisy: Whether it wants noise; it is given None otherwise.
    """

    time: int
    move: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    noisy: bool


class StepwiseSampler(Sampler):
    """A sampler that is a chain of transitions, each from the state before alone."""

    @abstractmethod
    def transitions(self, process: Any) -> list[Transition]:
        """The chain, from noise to data."""

    def sample(self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: Any) -> Tensor:
        """See `Sampler.sample`."""
        x = noise(0, shape)
        for i, one in enumerate(self.transitions(process)):
            x = one.move(denoise_fn(x, process.full(one.time, x)), x, noise(i + 1, shape) if one.noisy else None)
        return x


class DDPM(StepwiseSampler):
    """Ancestral sampling over all T steps (Ho et al. 2020, algorithm 2), with the variance of the process."""

    def calls(self, process: GaussianDiffusion) -> int:
        """T."""
        return process.steps

    def kept(self, process: GaussianDiffusion) -> Sequence[int]:
        """The steps that are taken, ascending."""
        return range(process.steps)

    def step(
        self, process: GaussianDiffusion, output: Tensor, x: Tensor, t: int, noise: Tensor | None = None
    ) -> Tensor:
        """x_{t-1} from x_t; without noise the mean, which at t = 0 is x0 itself."""
        mean, log_variance, _ = process.p_mean_variance(output, x, process.full(t, x))
        return mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise

    def transitions(self, process: GaussianDiffusion) -> list[Transition]:
        """See `StepwiseSampler`."""
        kept = self.kept(process)
        process = process if len(kept) == process.steps else process.respaced(kept)

        def move(t: int) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
            return lambda output, x, noise: self.step(process, output, x, t, noise)

        return [Transition(kept[t], move(t), t > 0) for t in reversed(range(len(kept)))]


class RespacedDDPM(DDPM):
    """Ancestral sampling over some of the steps, by the process that they make (Nichol & Dhariwal 2021, section 4).

    Args:
        steps: Which: see `space_timesteps`. VIDM: ddim100, and 100 in its previews.
    """

    def __init__(self, steps: int | str = 100) -> None:
        self.steps = steps

    def calls(self, process: GaussianDiffusion) -> int:
        """The number of steps that are taken."""
        return len(self.kept(process))

    def kept(self, process: GaussianDiffusion) -> Sequence[int]:
        """See `DDPM.kept`."""
        return space_timesteps(process.steps, self.steps)


class DDIM(StepwiseSampler):
    """Denoising diffusion implicit models (Song et al. 2021, equation 12).

    Args:
        steps: Network calls S, fewer than T.
        eta: 0 deterministic, 1 ancestral variance.
        rule: official is LFDM's released sampler (and lucidrains' of that time): S transitions between the times
            int(linspace(0, T, S + 2)[:-1]) from the second-highest of them, alphas read one index too low
            (`alphas_cumprod_prev`), and the network's own eps although x0 is thresholded. corrected: proper times,
            `alphas_cumprod`, eps derived again from the thresholded x0. pvdm is PVDM's released sampler: S transitions
            between the S + 1 times int(linspace(-1, T - 1, S + 1)), `alphas_cumprod`, and the network's own eps.
        spacing: Times of the corrected rule: trailing T-1, T-1-T/S, ... (Lin et al. 2024) or leading ..., T/S, 0.
    """

    def __init__(
        self,
        steps: int = 50,
        eta: float = 1.0,
        rule: Literal["official", "corrected", "pvdm"] = "corrected",
        spacing: Literal["trailing", "leading"] = "trailing",
    ) -> None:
        self.steps, self.eta, self.rule, self.spacing = steps, eta, rule, spacing

    def calls(self, process: GaussianDiffusion) -> int:
        """S."""
        return self.steps

    def times(self, total: int) -> list[tuple[int, int]]:
        """(time, next time) of each transition; the last next time is 0 (official) or -1 (corrected: clean data)."""
        if not 0 < self.steps < total:
            raise ValueError(f"DDIM takes 1 to {total - 1} steps, not {self.steps}; DDPM takes all {total}")
        if self.rule == "official":
            times = [int(t) for t in torch.linspace(0.0, total, self.steps + 2, dtype=torch.float32)[:-1]][::-1]
            return list(pairwise(times))
        if self.rule == "pvdm":
            times = torch.linspace(-1, total - 1, self.steps + 1, dtype=torch.float32).int().tolist()[::-1]
            return list(pairwise(times))
        if self.spacing == "trailing":
            times = [round(total - i * total / self.steps) - 1 for i in range(self.steps)]
        else:
            times = [i * (total // self.steps) for i in reversed(range(self.steps))]
        return list(zip(times, [*times[1:], -1], strict=True))

    def transitions(self, process: GaussianDiffusion) -> list[Transition]:
        """See `StepwiseSampler`."""

        def move(time: int, following: int) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
            return lambda output, x, noise: self.step(process, output, x, time, following, noise)

        return [
            Transition(time, move(time, following), self.eta > 0 and following != self._end)
            for time, following in self.times(process.steps)
        ]

    @property
    def _end(self) -> int:
        """What follows the last time."""
        return 0 if self.rule == "official" else -1

    def step(
        self,
        process: GaussianDiffusion,
        output: Tensor,
        x: Tensor,
        time: int,
        following: int,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One transition; to the end, x0 itself.

        Args:
            process: The diffusion process.
            output: Network output at x.
            x: Data at `time`.
            time: Where x is.
            following: Where to go; lower, or with eta 0 also higher, which takes data back to noise (T is noise alone).
            noise: Standard normal, for eta > 0.
        """
        official = self.rule == "official"
        table = process.schedule.alphas_cumprod_prev if official else process.schedule.alphas_cumprod
        x0, eps = process.x0_eps(output, x, process.full(time, x), rederive=self.rule == "corrected")
        if following == self._end:
            return x0
        a, b = table[time], table[following] if following < len(table) else torch.zeros_like(table[0])
        sigma = self.eta * ((1 - a / b) * (1 - b) / (1 - a)).sqrt() if self.eta > 0 else 0 * a
        x = b.sqrt() * x0 + (1 - b - sigma**2).clamp(min=0).sqrt() * eps
        return x if noise is None else x + sigma * noise
