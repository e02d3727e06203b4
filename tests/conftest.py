"""Settings of every test: one thread, no network, no account, caches of their own."""

import os
import tempfile

# Before anything imports torch, transformers or wandb: they read these once.
_CACHE = tempfile.mkdtemp(prefix="vgen-test-cache-")
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    WANDB_MODE="disabled",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HOME=os.path.join(_CACHE, "huggingface"),
    TORCH_HOME=os.path.join(_CACHE, "torch"),
    MPLCONFIGDIR=os.path.join(_CACHE, "matplotlib"),
    MPLBACKEND="Agg",
)

import shutil  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

import vgen  # noqa: E402, F401  before lightning and torchvision: runs the torchvision check
from tests.run_directory import write_run  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def _written_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("written") / "lfdm_mug")


@pytest.fixture
def run_dir(_written_run, tmp_path):
    """A finished run with videos, curves and one evaluation."""
    return shutil.copytree(_written_run, tmp_path / "runs" / "lfdm_mug")


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)
