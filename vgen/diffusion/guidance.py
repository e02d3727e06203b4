"""Guidance of a denoiser's output."""

from typing import Any

import torch
from torch import Tensor


def classifier_free(conditional: Tensor, unconditional: Tensor, scale: float | Tensor, rescale: float = 0.0) -> Tensor:
    """Returns unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, equation 6 with scale = w + 1).

    Args:
        conditional: Output with the condition, (B, ...).
        unconditional: Output without it, (B, ...).
        scale: 1 is the conditional output, 0 the unconditional; a tensor that broadcasts, such as `per_frame`'s.
        rescale: Share phi of the result that is brought back to the conditional output's standard deviation over all
            non-batch dimensions (Lin et al. 2024, equations 14-16).
    """
    return rescaled(unconditional + (conditional - unconditional) * scale, conditional, rescale)


def two_conditions(
    both: Tensor, first: Tensor, neither: Tensor, first_scale: float, second_scale: float, rescale: float = 0.0
) -> Tensor:
    """Neither + a (first - neither) + b (both - first): two conditions with a scale each (Brooks et al. 2023, eq. 3).

    Args:
        both: Output with both conditions, (B, ...).
        first: Output with the first alone, such as an image.
        neither: Output with none.
        first_scale: a.
        second_scale: b, of the second condition, such as a text.
        rescale: See `classifier_free`.
    """
    return rescaled(neither + first_scale * (first - neither) + second_scale * (both - first), both, rescale)


def per_frame(first: float, last: float, frames: int, device: torch.device | None = None) -> Tensor:
    """Scales that grow linearly over the frames (Blattmann et al. 2023, "Stable Video Diffusion"): (1, 1, T, 1, 1)."""
    return torch.linspace(first, last, frames, device=device).view(1, 1, -1, 1, 1)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """A share of the guided output at the conditional output's standard deviation, the rest as it is."""
    if share == 0:
        return guided
    dims = list(range(1, guided.ndim))
    factor = conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return guided * (share * factor + (1 - share))


def guided(
    denoiser: Any, x: Tensor, time: Tensor, cond: Tensor | None = None, scale: float | Tensor = 1.0, **inputs: Any
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
        scale: Guidance scale, or scales as in `classifier_free`.
        inputs: Further inputs of the denoiser. `null_mask`: samples without a condition, which guidance leaves
            unchanged.
    """
    alike = not isinstance(scale, Tensor)
    if not denoiser.has_cond or (alike and scale == 1):
        output: Tensor = denoiser(x, time, cond, **inputs)
        return output
    if alike and scale == 0:
        everything = torch.ones(len(x), dtype=torch.bool, device=x.device)
        output = denoiser(x, time, cond, **{**inputs, "null_mask": everything})
        return output
    with_cond, without = denoiser.forward_pair(x, time, cond, **inputs)
    return classifier_free(with_cond, without, scale)
