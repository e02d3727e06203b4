"""Tiny data sets in the layouts and codecs of the real ones: class decides motion, identity decides appearance."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vgen.data.fake.actions import write_folder, write_mhad, write_natops
from vgen.data.fake.mnist import write_moving_mnist
from vgen.data.fake.mug import write_mug
from vgen.data.fake.people import write_kinetics600, write_kth, write_taichi, write_ucf101
from vgen.data.fake.scenes import (
    write_bair,
    write_cityscapes,
    write_clevrer,
    write_faceforensics,
    write_skytimelapse,
)

__all__ = [
    "WRITERS",
    "write_bair",
    "write_cityscapes",
    "write_clevrer",
    "write_faceforensics",
    "write_folder",
    "write_kinetics600",
    "write_kth",
    "write_mhad",
    "write_moving_mnist",
    "write_mug",
    "write_natops",
    "write_skytimelapse",
    "write_taichi",
    "write_ucf101",
]


def _mug(root: Path, size: int = 64, subjects: int = 32, takes: int = 2, seed: int = 0, processes: int = 1) -> Path:
    test = subjects // 4
    return write_mug(root, size, subjects - test, test, takes, seed=seed, processes=processes)


def _renamed(write: Callable[..., Path], names: dict[str, str], root: Path, **given: Any) -> Path:
    return write(root, **{names.get(name, name): value for name, value in given.items()})


# What `vgen data make-fake` calls, with the root and those of `size` (height of the pictures), `subjects`, `takes` and
# `seed` that were given on the command line. The sets whose pictures have one fixed size take no `size`.
WRITERS: dict[str, Callable[..., Path]] = {
    "bair": write_bair,
    "cityscapes": partial(_renamed, write_cityscapes, {"size": "height"}),
    "clevrer": partial(_renamed, write_clevrer, {"size": "height"}),
    "faceforensics": partial(_renamed, write_faceforensics, {"size": "height"}),
    "folder": write_folder,
    "kinetics600": partial(_renamed, write_kinetics600, {"size": "height"}),
    "kth": partial(_renamed, write_kth, {"size": "height"}),
    "mhad": partial(_renamed, write_mhad, {"size": "height", "takes": "trials"}),
    "moving_mnist": write_moving_mnist,
    "mug": _mug,
    "natops": partial(_renamed, write_natops, {"size": "height", "takes": "repetitions"}),
    "skytimelapse": partial(_renamed, write_skytimelapse, {"size": "height"}),
    "taichi": write_taichi,
    "ucf101": partial(_renamed, write_ucf101, {"size": "height"}),
}
