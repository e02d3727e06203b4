"""Kernel distances (maximum mean discrepancy) between two sets of features."""

import numpy as np
import torch
from torch import Tensor

_ROWS = 4096  # rows of a kernel matrix held at once: 2 x 4096 x 10k float64 values are 0.7 GB


def polynomial_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared MMD over all pairs with the kernel (x.y / D + 1)^3, float64 (KVD of TATS and DIGAN).

    No subsets and no factor 1000, unlike KID.

    Args:
        x: (N, D) features, N >= 2.
        y: (M, D) features, M >= 2.
    """
    x, y = (features.detach().cpu().double() for features in (x, y))
    n, m = len(x), len(y)
    within = (_sum(x, x) - _diagonal(x).sum()) / (n * (n - 1)) + (_sum(y, y) - _diagonal(y).sum()) / (m * (m - 1))
    return within - 2 * _sum(x, y) / (n * m)


def kernel_inception_distance(
    generated: Tensor, real: Tensor, subsets: int = 100, most: int = 1000, seed: int = 0
) -> Tensor:
    """Mean over random subsets of the squared MMD, as StyleGAN-ADA computes KID (without its factor 1000).

    Args:
        generated: (N, D) features.
        real: (M, D) features.
        subsets: Number of draws.
        most: Largest size of a subset.
        seed: Of numpy's legacy generator, from which every draw takes generated, then real rows.
    """
    generated, real = (features.detach().cpu().double() for features in (generated, real))
    size = min(len(generated), len(real), most)
    # NPY002 would have the new generator, whose draws are others.
    chance = np.random.RandomState(seed)
    total = torch.zeros((), dtype=torch.float64)
    for _ in range(subsets):
        x = generated[torch.from_numpy(chance.choice(len(generated), size, replace=False))]
        y = real[torch.from_numpy(chance.choice(len(real), size, replace=False))]
        within = _sum(x, x) + _sum(y, y) - _diagonal(x).sum() - _diagonal(y).sum()
        total += (within / (size - 1) - 2 * _sum(x, y) / size) / size
    return total / subsets


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _sum(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([_kernel(rows, y).sum() for rows in x.split(_ROWS)]).sum()


def _diagonal(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3
