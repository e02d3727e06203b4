"""Learning-rate schedules that torch does not have."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine(LambdaLR):
    """Linear warm-up from zero, then half a cosine down to `final` times the rate, counted in optimiser steps.

    Args:
        optimizer: The optimiser.
        warmup_steps: Steps of the linear rise.
        total_steps: Steps at which the cosine ends.
        final: Fraction of the rate that is left at the end.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, final: float = 0.0) -> None:
        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, factor)


class LinearWarmup(LambdaLR):
    """Linear warm-up, then a constant rate, counted in optimiser steps.

    Args:
        optimizer: The optimiser.
        warmup_steps: Steps of the rise.
        start: Fraction of the rate to begin with.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, start: float = 1e-6) -> None:
        def factor(step: int) -> float:
            return min(1.0, start + (1 - start) * step / warmup_steps) if warmup_steps else 1.0

        super().__init__(optimizer, factor)
