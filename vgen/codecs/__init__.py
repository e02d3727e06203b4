"""First stages of latent models."""

from vgen.codecs.base import Frozen, Latent, LatentCodec, open_codec

__all__ = ["Frozen", "Latent", "LatentCodec", "open_codec"]
