"""How much generated clips differ from each other."""

import torch
from torch import Tensor

from vgen.metrics.features import FeatureMetric, Features


class Diversity(FeatureMetric):
    """Mean Euclidean distance of the features of two different generated clips, over all pairs.

    It has meaning beside that of as many real clips: far below, the model repeats itself; above, it leaves the data.
    """

    higher_is_better = None
    least_clips = 2

    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """See `FeatureMetric`; real clips do not count."""
        return mean_distance(self.need(fake, "fake").values.double())


def mean_distance(rows: Tensor) -> Tensor:
    """Mean Euclidean distance over all pairs of rows (N, D), N >= 2: a scalar."""
    return torch.pdist(rows).mean()
