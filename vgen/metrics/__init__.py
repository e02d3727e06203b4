"""Metrics of generated and reconstructed video, synchronised over ranks, with intervals and named protocols."""

from vgen.metrics.bank import VideoFeatureBank
from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.consistency import CLIPSIM, FrameConsistency, SubjectConsistency
from vgen.metrics.control import ClassControl
from vgen.metrics.distribution import (
    FVD,
    KVD,
    ConditionalFVD,
    ContentDebiasedFVD,
    FrameFID,
    ReconstructionFVD,
    VideoInceptionScore,
)
from vgen.metrics.diversity import Diversity
from vgen.metrics.features import FeatureMetric
from vgen.metrics.frames import PSNR, SSIM
from vgen.metrics.motion import MotionEnergy, motion_energy
from vgen.metrics.per_clip import PerClipMetric
from vgen.metrics.perceptual import LPIPS, LPIPSDistance
from vgen.metrics.protocols import Protocol, load_protocol, protocol_names
from vgen.metrics.reconstruction import ReconstructionGain, box_mask, landmark_boxes
from vgen.metrics.vbench import DynamicDegree, MotionSmoothness, TemporalFlickering

__all__ = [
    "CLIPSIM",
    "FVD",
    "KVD",
    "LPIPS",
    "PSNR",
    "SSIM",
    "ClassControl",
    "ConditionalFVD",
    "ContentDebiasedFVD",
    "Diversity",
    "DynamicDegree",
    "FeatureMetric",
    "FrameConsistency",
    "FrameFID",
    "LPIPSDistance",
    "MotionEnergy",
    "MotionSmoothness",
    "PerClipMetric",
    "Protocol",
    "ReconstructionFVD",
    "ReconstructionGain",
    "SubjectConsistency",
    "TemporalFlickering",
    "VideoFeatureBank",
    "VideoInceptionScore",
    "bootstrap_interval",
    "box_mask",
    "landmark_boxes",
    "load_protocol",
    "motion_energy",
    "protocol_names",
]
