"""A toy model, its data, and trainers that write into a temporary folder."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from tests.mechanics.toy import ToyAutoencoder, ToyClips, ToyDiffusion, ToyNetwork
from vgen.callbacks import AtomicCheckpointIO, Clock


@pytest.fixture
def data():
    return ToyClips()


@pytest.fixture
def model(data):
    return ToyAutoencoder(data.clip_spec, ToyNetwork(), optimizer=partial(torch.optim.SGD, lr=0.1))


@pytest.fixture
def two_stage(data):
    """A second stage with a frozen codec inside."""
    return ToyDiffusion(data.clip_spec, ToyNetwork(), ToyAutoencoder(data.clip_spec, ToyNetwork(dim=6)))


@pytest.fixture
def trainer(tmp_path):
    """Makes trainers: `trainer(callbacks, max_steps=4, ...)`."""

    def make(*callbacks, **options):
        options = {
            "accelerator": "cpu", "devices": 1, "max_steps": 4, "logger": False, "enable_progress_bar": False,
            "enable_model_summary": False, "use_distributed_sampler": False, "log_every_n_steps": 1,
            "num_sanity_val_steps": 0, "enable_checkpointing": False, "default_root_dir": str(tmp_path),
            "profiler": Clock(), **options,
        }  # fmt: skip
        return Trainer(callbacks=list(callbacks), plugins=[AtomicCheckpointIO()], **options)

    return make
