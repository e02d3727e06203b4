"""Networks that read something from a clip, for metrics."""

from vgen.metrics.detectors.base import Detector, Identity, SmallDetector
from vgen.metrics.detectors.compact import (
    CompactClassifier,
    accuracy,
    classify,
    collect,
    repeat_first_frame,
    train_classifier,
    trained_classifier,
)
from vgen.metrics.detectors.registry import DetectorCard, DetectorStatus, status

__all__ = [
    "CompactClassifier",
    "Detector",
    "DetectorCard",
    "DetectorStatus",
    "Identity",
    "SmallDetector",
    "accuracy",
    "classify",
    "collect",
    "repeat_first_frame",
    "status",
    "train_classifier",
    "trained_classifier",
]
