"""LightningModule bases."""

from vgen.training.base import SingleLossModule, VideoModule
from vgen.training.sampling import SamplesClips

__all__ = ["SamplesClips", "SingleLossModule", "VideoModule"]
