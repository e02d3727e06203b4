"""Dormand and Prince's Runge-Kutta pair of orders 4 and 5 for many systems at once, each with steps of its own.

The control of the steps is that of scipy's RK45 (Hairer, Norsett & Wanner, section II.4), so that one system takes the
same steps there. scipy's own has one step size for a whole batch, which makes every sample depend on the others.
"""

from collections.abc import Callable

import torch
from torch import Tensor

#: (t (S,), y (S, D)) -> dy/dt (S, D), all fp64; row by row, without a glance at other rows.
Field = Callable[[Tensor, Tensor], Tensor]

_C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_B = (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_E = (-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
_POWER = -1 / 5
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0


def solve(field: Field, y: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, int]:
    """Integrates from `start` to `end`.

    Args:
        field: The right-hand side.
        y: Initial states of S systems, (S, D) fp64.
        start: First time.
        end: Last time, on either side.
        tolerance: Relative and absolute.

    Returns:
        Final states (S, D), and how often the field was evaluated for all systems.

    Raises:
        ArithmeticError: Steps became too small for the numbers, or a state is not finite.
    """
    direction = 1.0 if end > start else -1.0
    t = y.new_full((len(y),), start)
    f = field(t, y)
    size, calls = _first_step(field, y, f, t, direction, abs(end - start), tolerance), 2
    retried = torch.zeros_like(t, dtype=torch.bool)
    active = torch.ones_like(retried)
    while bool(active.any()):
        least = 10 * (torch.nextafter(t, t + direction) - t).abs()
        if bool((active & ((size < least) & retried | ~size.isfinite())).any()):
            raise ArithmeticError("the step size of the ODE solver fell below what numbers can tell apart")
        size = torch.where(retried, size, torch.maximum(size, least))
        after = t + direction * size
        after = torch.where(direction * (after - end) > 0, end, after)
        h = torch.where(active, after - t, 0.0)
        size = torch.where(active, h.abs(), size)
        new, slopes = _attempt(field, t, y, f, h)
        calls += 6
        scale = tolerance + torch.maximum(y.abs(), new.abs()) * tolerance
        error = _norm(sum(e * k for e, k in zip(_E, slopes, strict=True)) * h[:, None] / scale)
        factor = _SAFETY * error**_POWER
        accepted = active & (error < 1)
        grown = factor.clamp(max=_GROW)
        grown = torch.where(retried, grown.clamp(max=1), grown)
        size = torch.where(active, size * torch.where(accepted, grown, factor.clamp(min=_SHRINK)), size)
        t = torch.where(accepted, after, t)
        y = torch.where(accepted[:, None], new, y)
        f = torch.where(accepted[:, None], slopes[-1], f)
        retried = active & ~accepted
        active = active & (direction * (t - end) < 0)
    return y, calls


def _attempt(field: Field, t: Tensor, y: Tensor, f: Tensor, h: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A step of every system, and the seven slopes."""
    step, slopes = h[:, None], [f]
    for c, row in zip(_C, _A, strict=True):
        slopes.append(field(t + c * h, y + step * sum(a * k for a, k in zip(row, slopes, strict=True))))
    new = y + step * sum(b * k for b, k in zip(_B, slopes, strict=True))
    slopes.append(field(t + h, new))
    return new, slopes


def _first_step(
    field: Field, y: Tensor, f: Tensor, t: Tensor, direction: float, length: float, tolerance: float
) -> Tensor:
    """Sizes (S,) of the first steps, from the size of the first and second derivatives."""
    scale = tolerance + y.abs() * tolerance
    states, slopes = _norm(y / scale), _norm(f / scale)
    guess = torch.where((states < 1e-5) | (slopes < 1e-5), 1e-6, 0.01 * states / slopes).clamp(max=length)
    there = field(t + direction * guess, y + direction * guess[:, None] * f)
    bends = _norm((there - f) / scale) / guess
    flat = (slopes <= 1e-15) & (bends <= 1e-15)
    size = torch.where(flat, (guess * 1e-3).clamp(min=1e-6), (0.01 / torch.maximum(slopes, bends)) ** (1 / 5))
    return torch.minimum(100 * guess, size).clamp(max=length)


def _norm(x: Tensor) -> Tensor:
    """Root mean square of each row."""
    return x.square().mean(1).sqrt()
