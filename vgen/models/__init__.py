"""The model families, one folder each.

Importing this package imports all of them, so that a recipe may name a class without its module.
"""

from vgen.models import lfdm, mocogan, pvdm, score, svg, tgan, vdm, vgan, video_ldm, videogpt, vidm

__all__ = ["lfdm", "mocogan", "pvdm", "score", "svg", "tgan", "vdm", "vgan", "video_ldm", "videogpt", "vidm"]
