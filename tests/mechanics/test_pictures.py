"""Pictures of a run do not depend on the number of ranks that made them."""

import json
import shutil

import numpy as np
import torch

from tests.mechanics.processes import apart
from tests.mechanics.runs import RECIPE, fit
from tests.mechanics.toy import ToyDiffusion
from vgen.video.io import read_frames

COUNT = 3


class Still(ToyDiffusion):
    """Does not learn; a buffer holds the rank, as a BatchNorm's statistics hold what a rank has seen."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.denoiser.encoder[1].momentum = 0.0
        self.register_buffer("own", torch.zeros(()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        self.own.fill_(float(self.trainer.global_rank))

    def generate(self, *arguments):
        return super().generate(*arguments) * (1 - self.own)


def test_one_rank_and_two(tmp_path):
    text = RECIPE.read_text()
    assert text.count("tests.mechanics.toy.ToyDiffusion") == 1
    text = text.replace("tests.mechanics.toy.ToyDiffusion", "tests.mechanics.test_pictures.Still")
    recipe = tmp_path / "still.yaml"
    recipe.write_text(text.replace("every_n_steps: 4, num_samples: 2", f"every_n_steps: 1, num_samples: {COUNT}"))
    short = ["--all_stages.trainer.max_steps=1"]
    one = fit(tmp_path / "one", *short, recipe=recipe)
    two = tmp_path / "two"
    # The first stage is copied: on two ranks it would see other clips.
    shutil.copytree(one / "autoencoder", two / "autoencoder")
    codes, output = apart(two, *short, "--only", "diffusion", "--resume", recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    name = "diffusion/samples/step_00000001_samples"
    facts = [json.loads((run / f"{name}.json").read_text()) for run in (one, two)]
    assert facts[0] == facts[1] and facts[0]["layout"]["columns"] == COUNT
    pictures = [read_frames(run / f"{name}.mp4") for run in (one, two)]
    assert np.array_equal(*pictures)
    assert np.std(pictures[0]) > 20
