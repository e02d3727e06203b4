"""Inception score: how sure a classifier is of each clip, and how many classes it sees in all."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def inception_score(
    logits: Tensor, splits: int = 1, shuffle_seed: int | None = None, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """exp(mean KL(p(y|x) || p(y))) in each of several contiguous parts (Salimans et al. 2016).

    The score grows with the size of a part: scores at different N / splits do not compare. tgan2 takes one part and
    epsilon 1e-20; StyleGAN-V ten parts of rows that `RandomState(42)` has shuffled.

    Args:
        logits: (N, K) scores before the softmax, which is computed in their own dtype.
        splits: Number of parts, at most N.
        shuffle_seed: Of numpy's legacy generator; None keeps the order.
        epsilon: Added to probabilities inside the logarithms.

    Returns:
        Mean and standard deviation (population) over the parts, float64.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} clips cannot be split into {splits} parts")
    p = logits.detach().cpu().softmax(1).double()
    if shuffle_seed is not None:
        order = np.arange(len(p))
        np.random.RandomState(shuffle_seed).shuffle(order)
        p = p[torch.from_numpy(order)]
    scores = torch.stack([_score(part, epsilon) for part in _parts(p, splits)])
    return scores.mean(), scores.std(correction=0)


def _parts(p: Tensor, splits: int) -> Iterator[Tensor]:
    for i in range(splits):
        yield p[i * len(p) // splits : (i + 1) * len(p) // splits]


def _score(p: Tensor, epsilon: float) -> Tensor:
    marginal = p.mean(0, keepdim=True)
    # 0 log 0 = 0: a class that was never seen adds nothing.
    divergence = torch.xlogy(p, p + epsilon) - torch.xlogy(p, marginal + epsilon)
    return divergence.sum(1).mean().exp()
