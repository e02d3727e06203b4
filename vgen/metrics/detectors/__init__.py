"""Networks that read something from a clip, for metrics."""

from vgen.metrics.detectors.compact import (
    CompactClassifier,
    accuracy,
    classify,
    collect,
    repeat_first_frame,
    train_classifier,
    trained_classifier,
)

__all__ = [
    "CompactClassifier",
    "accuracy",
    "classify",
    "collect",
    "repeat_first_frame",
    "train_classifier",
    "trained_classifier",
]
