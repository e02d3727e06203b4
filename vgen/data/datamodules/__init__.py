"""DataModules, by short name."""

from vgen.data.datamodules.bair import BAIR
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.datamodules.cityscapes import Cityscapes
from vgen.data.datamodules.clevrer import CLEVRER
from vgen.data.datamodules.faceforensics import FaceForensics
from vgen.data.datamodules.folder import Folder
from vgen.data.datamodules.kinetics import Kinetics600
from vgen.data.datamodules.kth import KTH
from vgen.data.datamodules.mhad import MHAD
from vgen.data.datamodules.moving_digits import MovingDigits
from vgen.data.datamodules.moving_mnist import MovingMNIST
from vgen.data.datamodules.mug import MUG
from vgen.data.datamodules.natops import NATOPS
from vgen.data.datamodules.skytimelapse import SkyTimelapse
from vgen.data.datamodules.taichi import TaiChiHD
from vgen.data.datamodules.ucf101 import UCF101

__all__ = [
    "BAIR",
    "CLEVRER",
    "DATA_SETS",
    "KTH",
    "MHAD",
    "MUG",
    "NATOPS",
    "UCF101",
    "Cityscapes",
    "FaceForensics",
    "Folder",
    "Kinetics600",
    "MovingDigits",
    "MovingMNIST",
    "SkyTimelapse",
    "TaiChiHD",
    "VideoDataModule",
]

# What the command line calls them.
DATA_SETS: dict[str, type[VideoDataModule]] = {
    "bair": BAIR,
    "cityscapes": Cityscapes,
    "clevrer": CLEVRER,
    "faceforensics": FaceForensics,
    "folder": Folder,
    "kinetics600": Kinetics600,
    "kth": KTH,
    "mhad": MHAD,
    "moving_digits": MovingDigits,
    "moving_mnist": MovingMNIST,
    "mug": MUG,
    "natops": NATOPS,
    "skytimelapse": SkyTimelapse,
    "taichi": TaiChiHD,
    "ucf101": UCF101,
}
