"""Condition encoders: what a generator is told about a clip, as one vector per clip."""

from vgen.conditioning.base import Conditioner, class_index, label_indices
from vgen.conditioning.label import LabelEmbedding
from vgen.conditioning.null import NullEmbedding, drop_mask, explicit_null_mask, null_mask
from vgen.conditioning.text import TextEncoder

__all__ = [
    "Conditioner",
    "LabelEmbedding",
    "NullEmbedding",
    "TextEncoder",
    "class_index",
    "drop_mask",
    "explicit_null_mask",
    "label_indices",
    "null_mask",
]
