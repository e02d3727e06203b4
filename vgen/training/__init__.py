"""LightningModule bases, and the strategies that copy a model to all ranks or spread it over them."""

from vgen.training.autoregressive import AutoregressiveCodes, CodeSampling
from vgen.training.base import SingleLossModule, VideoModule
from vgen.training.constraints import Constraint, SingularValueClipping, WeightClipping
from vgen.training.data_parallel import DataParallel
from vgen.training.diffusion import Extension, VideoDiffusion
from vgen.training.gan import AdversarialModule
from vgen.training.prediction import FramePrediction
from vgen.training.sampling import SamplesClips, StreamsClips
from vgen.training.sharding import FullySharded
from vgen.training.video_gan import Draw, VideoGAN

__all__ = [
    "AdversarialModule",
    "AutoregressiveCodes",
    "CodeSampling",
    "Constraint",
    "DataParallel",
    "Draw",
    "Extension",
    "FramePrediction",
    "FullySharded",
    "SamplesClips",
    "SingleLossModule",
    "SingularValueClipping",
    "StreamsClips",
    "VideoDiffusion",
    "VideoGAN",
    "VideoModule",
    "WeightClipping",
]
