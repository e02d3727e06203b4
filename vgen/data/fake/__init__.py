"""Tiny data sets in the layouts and codecs of the real ones: class decides motion, identity decides appearance."""

from vgen.data.fake.actions import write_folder, write_mhad, write_natops
from vgen.data.fake.mug import write_mug

__all__ = ["write_folder", "write_mhad", "write_mug", "write_natops"]
