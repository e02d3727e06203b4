"""Video tensors, files and the contracts between data, models and commands."""

from vgen.video.convert import to_float, to_uint8
from vgen.video.fields import Field
from vgen.video.frames import frame_of_each
from vgen.video.protocols import Illustrates, Reconstructs, Samples, Streams
from vgen.video.spec import ClipSpec

__all__ = [
    "ClipSpec",
    "Field",
    "Illustrates",
    "Reconstructs",
    "Samples",
    "Streams",
    "frame_of_each",
    "to_float",
    "to_uint8",
]
