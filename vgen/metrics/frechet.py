"""Fréchet distance between two sets of features, in float64.

FD = |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982), the number behind FID and FVD.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Covariance = Literal["biased", "unbiased"]
# Share of the traces below which the rounding of the fast form must stay, else the slower exact one is taken.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of features.

    Args:
        mean: (D,) float64.
        covariance: (D, D) float64.
        n: Number of features it was made from.
    """

    mean: Tensor
    covariance: Tensor
    n: int


def gaussian(features: Tensor, covariance: Covariance = "unbiased") -> Gaussian:
    """Fits a Gaussian on the CPU.

    Args:
        features: (N, D), any float type.
        covariance: Divisor: `biased` N (StyleGAN-V, cd-fvd), `unbiased` N - 1 (numpy.cov, tf-gan).

    Raises:
        ValueError: Fewer than two features.
    """
    if features.dim() != 2 or len(features) < 2:
        raise ValueError(f"a covariance needs at least two features (N, D), got {tuple(features.shape)}")
    x = features.detach().cpu().double()
    mean = x.mean(0)
    centred = x - mean
    divisor = len(x) if covariance == "biased" else len(x) - 1
    return Gaussian(mean, centred.T @ centred / divisor, len(x))


def frechet_distance(a: Gaussian, b: Gaussian) -> Tensor:
    """Exact distance, float64 scalar; symmetric, zero for equal arguments up to rounding.

    tr (A B)^(1/2) is the sum of the square roots of the eigenvalues of L^T B L with A = L L^T. Where A is singular, or
    an eigenvalue is so small that its root is lost in rounding, the roots are the singular values of
    A^(1/2) B^(1/2) instead, which need no square.
    """
    apart = (a.mean - b.mean).square().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return apart + traces - 2 * _trace_of_root(a.covariance, b.covariance, _ROUNDING * traces)


def _trace_of_root(a: Tensor, b: Tensor, allowed: Tensor) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(a)
    if not failed:
        values = torch.linalg.eigvalsh(lower.T @ b @ lower)
        # An eigenvalue carries an absolute error of about eps * largest; this is what becomes of it under the roots.
        error = torch.finfo(values.dtype).eps * values[-1] / (2 * values.clamp_min(1e-300).sqrt())
        if error.sum() <= allowed:
            return values.clamp_min(0).sqrt().sum()
    return torch.linalg.svdvals(_root_factor(a) @ _root_factor(b).T).sum()


def _root_factor(matrix: Tensor) -> Tensor:
    """F with F^T F = matrix, for a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp_min(0).sqrt()[:, None] * vectors.T


def tfgan_frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance as tf-gan and its PyTorch copies (VideoGPT, TATS, DIGAN, PVDM) round it, in the dtype of the features.

    Square roots by SVD in which singular values below 1e-10 stay as they are, divisor N - 1. Only for comparing with
    their printed numbers: in float32 a small distance is off by a percent and more.

    Args:
        a: (N, D) features.
        b: (M, D) features.
    """
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = ((x - mean).T @ (x - mean) / (len(x) - 1) for x, mean in ((a, mean_a), (b, mean_b)))
    root = _tfgan_root(cov_a)
    product = _tfgan_root(root @ cov_b @ root)
    return (mean_a - mean_b).square().sum() + (cov_a + cov_b).trace() - 2 * product.trace()


def _tfgan_root(matrix: Tensor) -> Tensor:
    u, s, vh = torch.linalg.svd(matrix)
    return u * torch.where(s < 1e-10, s, s.sqrt()) @ vh
