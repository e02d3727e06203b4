"""LightningModule bases, and the strategy that spreads a model over ranks."""

from vgen.training.base import SingleLossModule, VideoModule
from vgen.training.sampling import SamplesClips
from vgen.training.sharding import FullySharded

__all__ = ["FullySharded", "SamplesClips", "SingleLossModule", "VideoModule"]
