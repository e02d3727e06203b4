"""Whether a generated clip shows the class that was asked for."""

from collections.abc import Sequence

from torch import Tensor

from vgen.metrics.per_clip import PerClipMetric


class ClassControl(PerClipMetric):
    """Share of clips in which a classifier reads the requested class; per clip a hit (1) or a miss (0)."""

    def update(self, scores: Tensor, requested: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            scores: (B, K) scores of the classifier, or (B,) the classes it read.
            requested: (B,) int64.
            groups: Subject of each clip, for the interval.
        """
        read = scores.argmax(1) if scores.dim() == 2 else scores
        self.add((read == requested.to(read.device)).double(), groups)
