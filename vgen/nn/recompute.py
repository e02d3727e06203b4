"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[..., Any], *args: Any, norms_of: nn.Module | None = None, random: bool = False) -> Any:
    """Calls a function without keeping what its backward pass needs; gradients are exact.

    Args:
        function: A module, or a function of modules.
        args: Its arguments.
        norms_of: Where the function's BatchNorm layers are, if it is no module: their running statistics are updated
            once, although the layers run twice.
        random: The function draws random numbers (dropout): the second time, the same ones.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    root = function if isinstance(function, nn.Module) else norms_of
    norms = [m for m in root.modules() if isinstance(m, _BatchNorm) and m.training] if root is not None else []
    options: dict[str, Any] = {}
    if norms:

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_as_they_are(norms)

        options["context_fn"] = contexts
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=random, **options)


@contextmanager
def _statistics_as_they_are(norms: list[_BatchNorm]) -> Iterator[None]:
    """Normalises by the batch, with a momentum of zero: running statistics keep their values, counters stand still."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
