"""DataModules, by short name."""

from vgen.data.datamodules.base import VideoDataModule
from vgen.data.datamodules.folder import Folder
from vgen.data.datamodules.mhad import MHAD
from vgen.data.datamodules.mug import MUG
from vgen.data.datamodules.natops import NATOPS

__all__ = ["MHAD", "MUG", "NATOPS", "Folder", "VideoDataModule"]
