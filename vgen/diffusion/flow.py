"""Flow matching along straight lines x_t = (1 - t) x0 + t eps (Lipman et al. 2023; Liu et al. 2023)."""

from torch import Tensor


def shifted(t: Tensor, shift: float) -> Tensor:
    """Moves times towards noise: s t / (1 + (s - 1) t) (Esser et al. 2024, equation 23); 1 changes nothing.

    Args:
        t: Times in [0, 1], any shape.
        shift: s; larger for more pixels.
    """
    return shift * t / (1 + (shift - 1) * t)
