"""One pass of a detector for all metrics that share it."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vgen.metrics.detectors.base import Detector
from vgen.metrics.features import FeatureMetric, Features


class VideoFeatureBank(FeatureMetric):
    """Runs a detector once per clip and hands the features to several metrics.

    torchmetrics shares the states of equal metrics in a collection, but not the network before them. Here the bank has
    the states: it gathers features once over ranks, sorts them by clip, drops repetitions, and every metric reads its
    number from the same two sets.

    Args:
        detector: Frozen.
        metrics: By the names that their numbers get.
    """

    def __init__(self, detector: Detector, metrics: Mapping[str, FeatureMetric]) -> None:
        super().__init__()
        self.detector = detector
        self.metrics = nn.ModuleDict(metrics)

    def update(
        self,
        pixels: Tensor,
        real: bool,
        index: Tensor | None = None,
        label: Tensor | None = None,
        subject: Sequence[str] | Tensor | None = None,
    ) -> None:
        """Adds a batch of clips.

        Args:
            pixels: (B, C, T, H, W), uint8 or float in 0..255, on the detector's device.
            real: Which side they belong to.
            index: See `FeatureMetric.update`.
            label: (B,) class of each clip.
            subject: Subject of each clip.
        """
        if len(pixels):
            super().update(self.detector(pixels), real, index, label, subject)

    def score(self, real: Features | None, fake: Features | None) -> dict[str, Tensor]:  # type: ignore[override]
        """The number of every metric by its name."""
        scores = {}
        for name, metric in self.metrics.items():
            assert isinstance(metric, FeatureMetric)
            scores[name] = metric.score(real, fake)
        return scores

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Every metric over all ranks, float64, by its name."""
        return self.score(self.side("real"), self.side("fake"))
