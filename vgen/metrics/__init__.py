"""Metrics of generated and reconstructed video, synchronised over ranks, with intervals."""

from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.control import ClassControl
from vgen.metrics.motion import MotionEnergy, motion_energy
from vgen.metrics.per_clip import PerClipMetric
from vgen.metrics.reconstruction import ReconstructionGain, box_mask, landmark_boxes

__all__ = [
    "ClassControl",
    "MotionEnergy",
    "PerClipMetric",
    "ReconstructionGain",
    "bootstrap_interval",
    "box_mask",
    "landmark_boxes",
    "motion_energy",
]
