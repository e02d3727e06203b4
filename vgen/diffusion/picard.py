"""Parallel sampling: several steps of a clip at once, by Picard iteration (Shih et al. 2023, "Parallel Sampling")."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vgen.diffusion.noise import NoiseSource
from vgen.diffusion.samplers import DDIM, DenoiseFn, Sampler, StepwiseSampler
from vgen.errors import UserError


class Picard(Sampler):
    """Finds the path of a sequential sampler by iteration, a window of steps in one batch (algorithm 1).

    The path is x_{i+1} = x_0 + the sum of all moves up to step i, each of which is worked out at the last estimate of
    its state. A step whose state no longer changes is done and the window moves on, at least by one step: there are
    never more rounds than the sequential sampler has steps, usually far fewer, each as long as a batch of the window
    takes. It pays where a device is not filled by one clip; memory is that of the window and of the whole path.

    Every clip has a window of its own, so that a clip does not depend on its batch.

    Args:
        sampler: The sequential sampler: DDIM, DDPM or RespacedDDPM.
        window: Steps at once.
        tolerance: Root mean square change of a state that no longer counts; 0 gives the sequential sampler's result.
    """

    parallel: ClassVar[bool] = True

    def __init__(
        self,
        sampler: Sampler = DDIM(50, eta=0.0),  # noqa: B008  (without state)
        window: int = 16,
        tolerance: float = 1e-3,
    ) -> None:
        if not isinstance(sampler, StepwiseSampler):
            raise UserError(
                f"{type(sampler).__name__} is no chain of steps that could be found in parallel",
                "sampler.sampler",
                "DDIM, DDPM or RespacedDDPM",
            )
        if window < 1:
            raise UserError(f"a window has at least one step, not {window}", "sampler.window")
        self.sampler, self.window, self.tolerance = sampler, window, tolerance

    def changed(self, options: Mapping[str, Any]) -> Self:
        """See `Sampler.changed`; what is not an option of this sampler is one of the sequential one."""
        rest = dict(options)
        window, tolerance = rest.pop("window", self.window), rest.pop("tolerance", self.tolerance)
        return type(self)(self.sampler.changed(rest), window, tolerance)

    def calls(self, process: Any) -> int:
        """The steps of the sequential sampler: there are no more rounds than that."""
        return self.sampler.calls(process)

    def sample(self, denoise_fn: DenoiseFn, shape: Sequence[int], noise: NoiseSource, process: Any) -> Tensor:
        """See `Sampler.sample`.

        The denoiser is given (window x B, ...), the window slowest; see `rows`.
        """
        chain, batch = self.sampler.transitions(process), range(shape[0])
        start = noise(0, shape)
        path = start.repeat(len(chain) + 1, *(1,) * start.ndim)  # (N + 1, B, ...)
        drawn = [noise(i + 1, shape) if one.noisy else None for i, one in enumerate(chain)]
        done, times = [0] * shape[0], torch.tensor([one.time for one in chain], device=start.device)
        while min(done) < len(chain):
            # a clip that is ready repeats its last step
            places = [[min(first + w, len(chain) - 1) for first in done] for w in range(self.window)]
            index = torch.tensor(places, device=start.device)
            states = path[index, torch.arange(shape[0], device=start.device)]
            outputs = denoise_fn(states.flatten(0, 1), times[index].flatten()).unflatten(0, index.shape)
            for clip in batch:
                one, first = slice(clip, clip + 1), done[clip]
                x, changes = path[first, one], []
                for w, (i, step) in enumerate(list(enumerate(chain))[first : first + self.window]):
                    before, extra = path[i, one], drawn[i]
                    x = x + step.move(outputs[w, one], before, None if extra is None else extra[one]) - before
                    states[w, one] = x
                    changes.append((x - path[i + 1, one]).square().mean())
                if changes:
                    path[first + 1 : first + 1 + len(changes), clip] = states[: len(changes), clip]
                    path[first + 1 + len(changes) :, clip] = x[0]  # the best that is known of what lies behind
                    done[clip] += self._settled(torch.stack(changes).tolist())
        return path[-1]

    def _settled(self, changes: Sequence[float]) -> int:
        """How many states at the beginning of a window are final: the first is, as its own start is."""
        for count, change in enumerate(changes[1:], start=1):
            if change > self.tolerance**2:
                return count
        return len(changes)


def rows(condition: Tensor, x: Tensor) -> Tensor:
    """A condition (B, ...) for each row of x, which under a parallel sampler has several states of every clip."""
    states = len(x) // len(condition)
    return condition if states == 1 else condition.repeat(states, *(1,) * (condition.ndim - 1))
