"""VideoGPT's networks."""

from vgen.models.videogpt.networks.attention import AxialAttention, BlockLayout, strided_layout
from vgen.models.videogpt.networks.resnet import FrameResNet
from vgen.models.videogpt.networks.transformer import CodeTransformer, cross_entropy
from vgen.models.videogpt.networks.vqvae import VQVAE

__all__ = [
    "VQVAE",
    "AxialAttention",
    "BlockLayout",
    "CodeTransformer",
    "FrameResNet",
    "cross_entropy",
    "strided_layout",
]
