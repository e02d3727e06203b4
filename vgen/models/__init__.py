"""The model families, one folder each.

Importing this package imports all of them, so that a recipe may name a class without its module.
"""

from vgen.models import lfdm, pvdm, vdm, video_ldm

__all__ = ["lfdm", "pvdm", "vdm", "video_ldm"]
