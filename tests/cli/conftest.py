import shutil

import pytest

from tests.tiny_lfdm import train_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A trained tiny run, shared: tests that write take `tiny_run`."""
    return train_run(tmp_path_factory.mktemp("lfdm"))


@pytest.fixture
def tiny_run(finished_run, tmp_path):
    """A copy of the trained tiny run of this test's own."""
    return shutil.copytree(finished_run, tmp_path / "run")
