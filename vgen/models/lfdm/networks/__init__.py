"""Networks of LFDM: the flow auto-encoder of MRAA and the 3D U-Net over latent flow."""

from vgen.models.lfdm.networks.bg_predictor import BGMotionPredictor
from vgen.models.lfdm.networks.configs import (
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    RegionPredictorConfig,
)
from vgen.models.lfdm.networks.flow_predictor import PixelwiseFlowPredictor
from vgen.models.lfdm.networks.generator import Generator
from vgen.models.lfdm.networks.lfae import LFAE
from vgen.models.lfdm.networks.region_predictor import RegionPredictor
from vgen.models.lfdm.networks.unet3d import Unet3D

__all__ = [
    "LFAE",
    "BGMotionPredictor",
    "BackgroundConfig",
    "FlowPredictorConfig",
    "Generator",
    "GeneratorConfig",
    "PixelwiseFlowPredictor",
    "RegionPredictor",
    "RegionPredictorConfig",
    "Unet3D",
]
