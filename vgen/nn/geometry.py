"""Closed forms for batches of 2x2 matrices: inverse, and the principal axes of a covariance."""

import torch
from torch import Tensor

from vgen.nn.precision import at_least_fp32


def inverse_2x2(matrix: Tensor) -> Tensor:
    """Inverse of (..., 2, 2) by the adjugate: no LU, no host synchronisation."""
    a, b = matrix[..., 0, 0], matrix[..., 0, 1]
    c, d = matrix[..., 1, 0], matrix[..., 1, 1]
    determinant = a * d - b * c
    adjugate = torch.stack((torch.stack((d, -b), dim=-1), torch.stack((-c, a), dim=-1)), dim=-2)
    return adjugate / determinant[..., None, None]


def principal_axes(covariance: Tensor, guard: bool = False) -> tuple[Tensor, Tensor]:
    """Singular vectors and values of symmetric positive semi-definite 2x2 matrices, in closed form and fp32.

    With (a, b; b, c) the matrix and r = sqrt(((a-c)/2)^2 + b^2): s1 = (a+c)/2 + r and s2 = (ac - b^2)/s1, which keeps
    its digits when s2 << s1; the angle of the first axis is atan2(2b, a-c)/2. U = [[x, y], [y, -x]] always has
    determinant -1, and its global sign follows LAPACK's rule for a 2x2 matrix (Householder, then slasv2), so that
    it equals `torch.svd` on the CPU: y > 0 where the determinant exceeds a^2 + b^2, x < 0 otherwise.

    Args:
        covariance: (..., 2, 2).
        guard: For training. The gradient of the axes contains 1/(s1^2 - s2^2) and that of sqrt(s2) 1/sqrt(s2): cuts
            the former for (nearly) isotropic matrices and keeps s2 away from 0.

    Returns:
        (U (..., 2, 2) with the axes as columns, singular values (..., 2) in descending order), fp32 (fp64 stays).
    """
    matrix = at_least_fp32(covariance)
    dtype = matrix.dtype
    with torch.autocast(covariance.device.type, enabled=False):
        a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
        half = (a - c) / 2
        if guard:
            isotropic = half.square() + b.square() <= (1e-6 * (a + c)).square()
            half, b = torch.where(isotropic, half.detach(), half), torch.where(isotropic, b.detach(), b)
        square = half.square() + b.square()
        if guard:  # a sqrt at 0 has an infinite derivative, also when nothing flows into its argument
            square = torch.where(isotropic, square.detach(), square)
        r = torch.sqrt(square)
        tiny = torch.finfo(dtype).tiny
        s1 = ((a + c) / 2 + r).clamp(min=1e-8 if guard else tiny)
        determinant = a * c - b.square()
        s2 = determinant / s1
        s2 = torch.maximum(s2, (1e-6 * s1.detach()).clamp(min=1e-8)) if guard else s2.clamp(min=tiny)

        angle = torch.atan2(b, half) / 2
        x, y = torch.cos(angle), torch.sin(angle)
        upright = determinant > a.square() + b.square()
        negative = torch.where(upright, y < 0, x > 0)
        sign = 1 - 2 * negative.to(dtype)
        x, y = x * sign, y * sign
        axes = torch.stack((torch.stack((x, y), dim=-1), torch.stack((y, -x), dim=-1)), dim=-2)
        return axes, torch.stack((s1, s2), dim=-1)
