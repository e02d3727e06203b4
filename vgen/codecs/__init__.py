"""First stages of latent models."""

from vgen.codecs.base import Companion, Frozen, Latent, LatentCodec, open_codec
from vgen.codecs.cache import LatentCache
from vgen.codecs.scaling import LatentScaling

__all__ = ["Companion", "Frozen", "Latent", "LatentCache", "LatentCodec", "LatentScaling", "open_codec"]
