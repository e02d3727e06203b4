"""Confidence intervals by resampling."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from vgen.metrics.frechet import frechet_distance, gaussian

Values = Tensor | np.ndarray | Sequence[float]


def bootstrap_interval(
    values: Values,
    groups: Sequence[Hashable] | Tensor | None = None,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
    denominator: Values | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, or of a ratio of two means.

    Clips of one person resemble each other, so that resampling clips alone would give too narrow an interval: with
    `groups`, whole groups are drawn with replacement (cluster bootstrap; Davison and Hinkley 1997, section 3.8).

    Args:
        values: One value per clip.
        groups: Group of each clip, such as its subject; None resamples single clips.
        level: Coverage of the interval.
        n: Number of resamples.
        seed: Makes the interval a function of its inputs.
        denominator: A second value per clip; the statistic is then sum(values) / sum(denominator).

    Returns:
        (low, high).
    """
    top = _flat(values)
    if top.size == 0:
        raise ValueError("a bootstrap interval needs at least one value")
    bottom = np.ones_like(top) if denominator is None else _flat(denominator)
    if groups is None:
        member = np.arange(top.size)
    else:
        names = [group.item() for group in groups] if isinstance(groups, Tensor) else list(groups)
        order: dict[Hashable, int] = {}
        member = np.array([order.setdefault(name, len(order)) for name in names])
    if not top.size == bottom.size == member.size:
        raise ValueError(f"{top.size} values, {bottom.size} denominators and {member.size} groups do not match")
    # A group enters a resample with all its clips, so its sums are all that is needed.
    count = int(member.max()) + 1
    top_sum, bottom_sum = np.bincount(member, top, count), np.bincount(member, bottom, count)
    drawn = np.random.default_rng(seed).integers(0, count, size=(n, count))
    statistics = top_sum[drawn].sum(1) / bottom_sum[drawn].sum(1)
    tail = (1 - level) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)


def frechet_interval(
    real: Tensor, fake: Tensor, level: float = 0.95, n: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of a Fréchet distance; both sets are resampled.

    A resample repeats some clips and lacks others, which makes a covariance of few features poorer and raises every
    distance. The quantiles are moved back by how much it does so on average (bias-corrected; Efron and Tibshirani 1993,
    section 10.2).

    Args:
        real: (N, D) features.
        fake: (M, D) features.
        level: Coverage of the interval.
        n: Number of resamples.
        seed: Makes the interval a function of its inputs.

    Returns:
        (low, high), low at least 0.
    """
    rng = np.random.default_rng(seed)

    def resampled(features: Tensor) -> Tensor:
        return features[torch.from_numpy(rng.integers(0, len(features), len(features)))]

    drawn = [float(frechet_distance(gaussian(resampled(real)), gaussian(resampled(fake)))) for _ in range(n)]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    bias = np.mean(drawn) - float(frechet_distance(gaussian(real), gaussian(fake)))
    return max(0.0, float(low - bias)), float(high - bias)


def _flat(values: Values) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.float64).reshape(-1)
