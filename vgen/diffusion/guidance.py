"""Guidance of a denoiser's output."""

from torch import Tensor


def classifier_free(conditional: Tensor, unconditional: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """Returns unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, equation 6 with scale = w + 1).

    Args:
        conditional: Output with the condition, (B, ...).
        unconditional: Output without it, (B, ...).
        scale: 1 is the conditional output, 0 the unconditional.
        rescale: Share phi of the result that is brought back to the conditional output's standard deviation over all
            non-batch dimensions (Lin et al. 2024, equations 14-16).
    """
    guided = unconditional + (conditional - unconditional) * scale
    if rescale == 0:
        return guided
    dims = list(range(1, guided.ndim))
    factor = conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return guided * (rescale * factor + (1 - rescale))
