"""SVG's networks."""

from vgen.models.svg.networks.backbones import Decoder, Encoder
from vgen.models.svg.networks.layers import ConvUnit, FrameNorm, Statistics
from vgen.models.svg.networks.recurrent import DeterministicLSTM, GaussianLSTM
from vgen.models.svg.networks.svg import SVGNetwork, Unrolled

__all__ = [
    "ConvUnit",
    "Decoder",
    "DeterministicLSTM",
    "Encoder",
    "FrameNorm",
    "GaussianLSTM",
    "SVGNetwork",
    "Statistics",
    "Unrolled",
]
