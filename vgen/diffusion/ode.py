"""The probability-flow ODE: sampling and exact likelihoods (Song et al. 2021, section 4.3 and appendix D)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vgen.diffusion.runge_kutta import solve
from vgen.diffusion.sde import SDE, ScoreFn

#: (x (B, ...), t (B,)) -> dx/dt.
DriftFn = Callable[[Tensor, Tensor], Tensor]


def ode_sample(
    sde: SDE, score_fn: ScoreFn, x: Tensor, end: float = 1e-3, tolerance: float = 1e-5, joint: bool = False
) -> tuple[Tensor, int]:
    """Integrates the ODE from noise at t = 1 to `end`.

    Args:
        sde: The SDE.
        score_fn: Its score function.
        x: Noise (B, ...) of the prior.
        end: Last time.
        tolerance: Relative and absolute.
        joint: One step size for the whole batch, as released; otherwise a sample does not depend on its batch.

    Returns:
        Samples of the shape of x, fp32, and the number of calls of the score function.
    """

    def field(t: Tensor, state: Tensor) -> Tensor:
        return (
            sde.reverse_drift(score_fn, state.float().view_as(x), _each(t, x), ode=True).reshape(state.shape).double()
        )

    with torch.no_grad():
        found, calls = solve(field, x.double().reshape(1 if joint else len(x), -1), 1.0, end, tolerance)
    return found.float().view_as(x), calls


def divergence(drift_fn: DriftFn, x: Tensor, t: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """The field, and Hutchinson's estimate probe^T J probe of its divergence, (B,).

    Args:
        drift_fn: The field.
        x: (B, ...).
        t: (B,).
        probe: Signs (Rademacher) or standard normal numbers, like x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        moved = drift_fn(x, t)
        gradient = torch.autograd.grad((moved * probe).sum(), x)[0]
    return moved.detach(), (gradient * probe).flatten(1).sum(1)


def log_likelihood_bits(
    sde: SDE,
    score_fn: ScoreFn,
    x0: Tensor,
    probe: Tensor,
    start: float = 1e-5,
    tolerance: float = 1e-5,
    offset: float = 7.0,
    joint: bool = False,
) -> tuple[Tensor, Tensor, int]:
    """Negative log-likelihood of data by the instantaneous change of variables (equation 39).

    Args:
        sde: The SDE.
        score_fn: Its score function.
        x0: Data (B, ...).
        probe: See `divergence`; one for the whole path.
        start: First time.
        tolerance: Relative and absolute.
        offset: Added for the scaling of 8-bit data to the model's range: 7 for [-1, 1], 8 for [0, 1].
        joint: See `ode_sample`.

    Returns:
        Bits per dimension (B,), the latents at t = 1 (B, ...), and the number of calls.
    """

    def drift_fn(x: Tensor, t: Tensor) -> Tensor:
        return sde.reverse_drift(score_fn, x, t, ode=True)

    def field(t: Tensor, state: Tensor) -> Tensor:
        now = (state[:, :size] if not joint else state[0, : x0.numel()]).float().view_as(x0)
        moved, change = divergence(drift_fn, now, _each(t, x0), probe)
        return _joined(moved, change, joint)

    size = x0[0].numel()
    found, calls = solve(field, _joined(x0, x0.new_zeros(len(x0)), joint), start, 1.0, tolerance)
    latent = (found[:, :size] if not joint else found[0, : x0.numel()]).float().reshape(x0.shape)
    change = (found[:, size] if not joint else found[0, x0.numel() :]).float()
    nats = sde.prior_log_density(latent) + change
    return -nats / (math.log(2) * size) + offset, latent, calls


def _each(t: Tensor, x: Tensor) -> Tensor:
    """Times of the systems as times (B,) of the samples, in the dtype of x."""
    return t.to(x.dtype).expand(len(x))


def _joined(x: Tensor, change: Tensor, joint: bool) -> Tensor:
    """State of the systems: the samples and their log-densities, (B, D + 1), or all in one row."""
    if joint:
        return torch.cat((x.reshape(1, -1), change[None]), dim=1).double()
    return torch.cat((x.flatten(1), change[:, None]), dim=1).double()
