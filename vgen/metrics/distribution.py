"""Distances between the distributions of real and generated clips: FVD and its kin.

The features decide what such a number is called: only logits of the published I3D make a Fréchet distance an FVD.
"""

from typing import Literal

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.metrics.features import FeatureMetric, Features
from vgen.metrics.frechet import Covariance, frechet_distance, gaussian
from vgen.metrics.inception_score import inception_score
from vgen.metrics.kernel import polynomial_mmd


class FVD(FeatureMetric):
    """Fréchet video distance (Unterthiner et al. 2018) on the 400 logits of I3D; on VideoMAE-v2's features, cd-FVD.

    Args:
        covariance: Divisor of the covariances, `biased` N or `unbiased` N - 1.
    """

    least_clips = 2

    def __init__(self, covariance: Covariance = "unbiased") -> None:
        super().__init__()
        self.covariance = covariance

    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """See `FeatureMetric`."""
        pair = (self.need(fake, "fake"), self.need(real, "real"))
        return frechet_distance(*(gaussian(_rows(side), self.covariance) for side in pair))


class ReconstructionFVD(FVD):
    """Fréchet distance of reconstructions to the clips that they were made from (autoencoders; PVDM logs it as FVD)."""


class FrameFID(FVD):
    """Fréchet inception distance over all frames (Heusel et al. 2017), from features (B, T, D) of Inception-v3."""


class ContentDebiasedFVD(FVD):
    """Fréchet distance on VideoMAE-v2's features (Ge et al. 2024), with their divisor N."""

    def __init__(self, covariance: Covariance = "biased") -> None:
        super().__init__(covariance)


class KVD(FeatureMetric):
    """Kernel video distance: unbiased squared MMD of I3D's logits, cubic kernel, all pairs (TATS, DIGAN)."""

    least_clips = 2

    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """See `FeatureMetric`."""
        return polynomial_mmd(_rows(self.need(fake, "fake")), _rows(self.need(real, "real")))


class ConditionalFVD(FeatureMetric):
    """cFVD and sFVD: FVD between clips of one class (or subject), then the plain mean over classes (LFDM, sec. 4.1).

    With tens of clips in a class its covariances are singular and the value is biased upwards: compare at equal counts.

    Args:
        by: `label` (cFVD) or `subject` (sFVD).
        covariance: Divisor of the covariances.

    Attributes:
        per_group: FVD of each class or subject, set by `compute`.
    """

    least_clips = 2

    def __init__(self, by: Literal["label", "subject"] = "label", covariance: Covariance = "unbiased") -> None:
        super().__init__()
        self.by, self.covariance = by, covariance
        self.per_group: dict[int, float] = {}

    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """See `FeatureMetric`; the mean over the groups.

        Raises:
            UserError: Clips without a group, or a group that one side has fewer than two clips of.
        """
        real, fake = self.need(real, "real"), self.need(fake, "fake")
        groups = {side: getattr(features, self.by) for side, features in (("real", real), ("fake", fake))}
        names = sorted(set(groups["real"].tolist()) | set(groups["fake"].tolist()))
        if -1 in names:
            raise UserError(f"clips without a {self.by}", where=f"{type(self).__name__}(by={self.by!r})")
        self.per_group = {}
        for name in names:
            pair = []
            for side, features in (("fake", fake), ("real", real)):
                members = groups[side] == name
                if members.sum() < 2:
                    raise UserError(
                        f"{self.by} {name} has {int(members.sum())} {side} clips, and FVD needs two",
                        where=f"{type(self).__name__}(by={self.by!r})",
                        hint="compare clips of the same classes or subjects on both sides",
                    )
                pair.append(gaussian(features.values[members], self.covariance))
            self.per_group[name] = float(frechet_distance(*pair))
        return torch.tensor(list(self.per_group.values()), dtype=torch.float64).mean()


class VideoInceptionScore(FeatureMetric):
    """Inception score of generated clips, on C3D's logits; see `inception_score`.

    Args:
        splits: Parts whose scores are averaged.
        shuffle_seed: Shuffles clips before they are split; None keeps their order.
        epsilon: Added to probabilities inside the logarithms.

    Attributes:
        deviation: Standard deviation (population) over the parts, set by `compute`.
    """

    higher_is_better = True

    def __init__(self, splits: int = 10, shuffle_seed: int | None = None, epsilon: float = 1e-20) -> None:
        super().__init__()
        self.splits, self.shuffle_seed, self.epsilon = splits, shuffle_seed, epsilon
        self.least_clips = splits
        self.deviation: float | None = None

    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """See `FeatureMetric`; real clips do not count."""
        logits = self.need(fake, "fake").values
        mean, deviation = inception_score(logits.double(), self.splits, self.shuffle_seed, self.epsilon)
        self.deviation = float(deviation)
        return mean


def _rows(features: Features) -> Tensor:
    """(N, D), frames counting as rows of their own."""
    return features.values.flatten(0, -2)
