"""Tiny sets that several tests read; they must not write into them."""

import shutil

import pytest

from tests.tiny_data import TINY
from vgen.data.fake import write_folder, write_mhad, write_mug, write_natops


@pytest.fixture(scope="session")
def mug_root(tmp_path_factory):
    """Four training and three test persons (049 has two sessions), 32 px."""
    return write_mug(tmp_path_factory.mktemp("mug"), size=32, train_subjects=4, test_subjects=3)


@pytest.fixture(scope="session")
def mhad_root(tmp_path_factory):
    return write_mhad(tmp_path_factory.mktemp("mhad"), height=48, subjects=4, actions=(1, 9, 27))


@pytest.fixture(scope="session")
def natops_root(tmp_path_factory):
    return write_natops(tmp_path_factory.mktemp("natops"), height=48, subjects=2, gestures=3, repetitions=2)


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"), size=32, subjects=5, frames=12)


@pytest.fixture
def own_mug(mug_root, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(mug_root, tmp_path / "mug")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """The tiny fake set of a DataModule, written when it is first asked for."""
    written = {}

    def root_of(name):
        if name not in written:
            written[name] = TINY[name](tmp_path_factory.mktemp(name))
        return written[name]

    return root_of
