"""Guidance of a denoiser's output."""

from typing import Any

import torch
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


def guided(
    denoiser: Any, x: Tensor, time: Tensor, cond: Tensor | None = None, scale: float = 1.0, **inputs: Any
) -> Tensor:
    """The output of a denoiser under classifier-free guidance, null + scale (cond - null); both run in one batch.

    Scale 1 is the conditional network alone and scale 0 the null one: neither costs a second pass.

    Args:
        denoiser: A network with `has_cond`, called with noisy samples, times, a condition or None, and further inputs
            by name, of which `null_mask` (B,) bool drops conditions. `forward_pair`, called alike, returns its outputs
            with and without the condition; only a network that has conditions needs it.
        x: Noisy samples (B, ...).
        time: (B,) diffusion timesteps.
        cond: Condition of each sample; ignored by a network without conditions.
        scale: Guidance scale.
        inputs: Further inputs of the denoiser. `null_mask`: samples without a condition, which guidance leaves
            unchanged.
    """
    if not denoiser.has_cond or scale == 1:
        output: Tensor = denoiser(x, time, cond, **inputs)
        return output
    if scale == 0:
        everything = torch.ones(len(x), dtype=torch.bool, device=x.device)
        output = denoiser(x, time, cond, **{**inputs, "null_mask": everything})
        return output
    with_cond, without = denoiser.forward_pair(x, time, cond, **inputs)
    return classifier_free(with_cond, without, scale)
