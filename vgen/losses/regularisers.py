"""Penalties that keep a network's outputs in a useful range, and projections that keep its weights there."""

import torch
import torch.nn.functional as F
from torch import Tensor


def logit_penalty(logits: Tensor, margin: float = 3.0) -> Tensor:
    """Mean square of how far logits lie beyond +-margin: keeps a sigmoid map from saturating.

    An occlusion map that is 1 everywhere bypasses the decoder, gives it no gradient and leaves nothing to learn.
    """
    return F.relu(logits.float().abs() - margin).square().mean()


@torch.no_grad()
def clip_singular_values(weight: Tensor, limit: float = 1.0) -> Tensor:
    """A weight whose singular values, as a matrix (outputs, the rest), are at most a limit (TGAN, section 3.3).

    With W W^T = U S^2 U^T, the result is U min(1, limit/S) U^T W: the decomposition is of a matrix of the smaller side
    only, on the device of the weight. It is in fp64, because squaring loses half of the digits.

    Args:
        weight: Weight of a layer, (outputs, ...).
        limit: Largest singular value.

    Returns:
        The same shape and type.
    """
    with torch.autocast(weight.device.type, enabled=False):
        matrix = weight.detach().flatten(1).double()
        wide = matrix.shape[0] <= matrix.shape[1]
        matrix = matrix if wide else matrix.T
        squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
        factors = limit / squares.clamp(min=limit**2).sqrt()
        clipped = (vectors * factors) @ (vectors.T @ matrix)
    return (clipped if wide else clipped.T).reshape(weight.shape).to(weight.dtype)


@torch.no_grad()
def clip_norm_scales(scale: Tensor, variance: Tensor, floor: float = 0.01) -> Tensor:
    """Scales of a BatchNorm, brought to between `floor` and 1 times its standard deviation (TGAN, section 3.3).

    The norm then stretches no direction: its scale divided by its standard deviation is at most 1. The floor is the
    released code's; negative scales end there too.

    Args:
        scale: (C,).
        variance: Its running variance (C,), without epsilon.
        floor: Least share of the standard deviation.
    """
    deviation = variance.detach().sqrt().to(scale.dtype)
    return torch.minimum(torch.maximum(scale, floor * deviation), deviation)
