"""LightningModule bases, and the strategy that spreads a model over ranks."""

from vgen.training.base import SingleLossModule, VideoModule
from vgen.training.diffusion import Extension, VideoDiffusion
from vgen.training.gan import AdversarialModule
from vgen.training.sampling import SamplesClips, StreamsClips
from vgen.training.sharding import FullySharded

__all__ = [
    "AdversarialModule",
    "Extension",
    "FullySharded",
    "SamplesClips",
    "SingleLossModule",
    "StreamsClips",
    "VideoDiffusion",
    "VideoModule",
]
