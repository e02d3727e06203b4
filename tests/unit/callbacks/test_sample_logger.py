"""Pictures during training: always of the same clips with the same noise."""

import json

import numpy as np
import pytest
import torch

from tests.mechanics.toy import ToyAutoencoder, ToyDiffusion, ToyNetwork
from vgen.callbacks import EMA, SampleLogger, StepSeed
from vgen.training import SingleLossModule
from vgen.video import Field
from vgen.video.figure import Layout
from vgen.video.io import read_frames


class Inside(ToyDiffusion):
    """Shows fields, and generates along with them."""

    sampled = 0

    def conditions(self, batch):
        return {"image": batch["video"][:, :, 0]}

    def generate(self, *arguments):
        self.sampled += 1
        return super().generate(*arguments)

    def illustrate(self, batch, seeds):
        flow = torch.zeros(len(seeds), 2, 2, 4, 4)
        flow[:, 0] = 2.0
        share = torch.full((len(seeds), 1, 2, 4, 4), 0.25)
        fields = {"flow": Field("flow", flow, "to the right"), "mask": Field("share", share)}
        return {"generated": torch.zeros_like(batch["video"]), **fields}


class Still(ToyAutoencoder):
    """Does not learn, so that all its pictures must be the same."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture
def asked(two_stage, monkeypatch):
    """What the second stage is asked to sample."""
    calls = []
    sample = two_stage.sample

    def record(conditions, n, **options):
        calls.append((conditions, n, options, two_stage.training, torch.is_grad_enabled()))
        return sample(conditions, n, **options)

    monkeypatch.setattr(two_stage, "sample", record)
    return calls


def samples(tmp_path):
    return sorted(path.name for path in (tmp_path / "samples").iterdir())


def test_steps_and_kinds(trainer, model, data, tmp_path):
    trainer(SampleLogger(every_n_steps=2, num_samples=3), max_steps=5).fit(model, datamodule=data)
    names = [f"step_{step:08d}_reconstructions.{kind}" for step in (2, 4, 5) for kind in ("json", "mp4")]
    assert samples(tmp_path) == names


def test_the_picture_and_its_caption(trainer, model, data, tmp_path):
    trainer(SampleLogger(every_n_steps=4, num_samples=3)).fit(model, datamodule=data)
    path = tmp_path / "samples" / "step_00000004_reconstructions.mp4"
    facts = json.loads(path.with_suffix(".json").read_text())
    layout = Layout.from_dict(facts.pop("layout"))
    assert facts == {
        "kind": "reconstructions",
        "step": 4,
        "fps": data.clip_spec.fps,
        "captions": ["left", "right", "left"],
        "rows": "",
    }
    assert layout.rows == ("real", "reconstructed") and layout.columns == 3
    assert (layout.height, layout.width) == (128, 128), "clips of 8 pixels are enlarged before they are encoded"
    shown = torch.from_numpy(read_frames(path)).permute(3, 0, 1, 2)
    real = data.first_clips("val", 3)["video"]
    for column in range(3):
        cell = layout.cut(shown, "real", column)[:, :, 8::16, 8::16].float()
        assert (cell - real[column].float()).abs().mean() < 12  # H.264 halves the resolution of colours


def test_rows_of_a_model_that_shows_its_inside(trainer, data, tmp_path):
    model = Inside(data.clip_spec, ToyNetwork(), ToyAutoencoder(data.clip_spec, ToyNetwork(dim=6)))
    trainer(SampleLogger(every_n_steps=4, num_samples=2)).fit(model, datamodule=data)
    facts = json.loads((tmp_path / "samples" / "step_00000004_samples.json").read_text())
    assert facts["layout"]["rows"] == ["given", "real", "generated", "flow", "mask"]
    assert facts["rows"] == "flow: to the right"
    assert model.sampled == 0, "what came out of the same computation is not computed again"
    shown = torch.from_numpy(read_frames(tmp_path / "samples" / "step_00000004_samples.mp4")).permute(3, 0, 1, 2)
    layout = Layout.from_dict(facts["layout"])
    red, green, blue = layout.cut(shown, "flow", 0).float().mean((1, 2, 3))
    assert red > 240 and green < 20 and blue < 20  # to the right by the full scale
    assert layout.cut(shown, "mask", 1).float().mean() == pytest.approx(255 / 4, abs=3)
    given = layout.cut(shown, "given", 0)
    assert (given[:, 0].float() - given[:, 1].float()).abs().mean() < 2, "it stands still"


def test_the_same_clips_with_the_same_noise(trainer, two_stage, data, tmp_path, asked):
    trainer(StepSeed(0), SampleLogger(every_n_steps=2, num_samples=3), max_steps=6).fit(two_stage, datamodule=data)
    assert len(asked) == 3
    for conditions, n, options, training, gradients in asked:
        assert n == 3 and options["seeds"] == [0, 1, 2] and not training and not gradients
        assert torch.equal(conditions["label"], asked[0][0]["label"])
    assert two_stage.training and not two_stage.codec.network.training
    assert samples(tmp_path)[1] == "step_00000002_samples.mp4"


def test_pictures_of_a_model_that_does_not_change_are_equal(trainer, data, tmp_path):
    model = Still(data.clip_spec, ToyNetwork())
    model.network.encoder[1].momentum = 0.0  # its running statistics would move
    trainer(StepSeed(0), SampleLogger(every_n_steps=2, num_samples=2)).fit(model, datamodule=data)
    one, two = (tmp_path / "samples" / f"step_0000000{step}_reconstructions.mp4" for step in (2, 4))
    assert np.array_equal(read_frames(one), read_frames(two))


def test_the_average_makes_the_picture(trainer, two_stage, data, monkeypatch):
    weights = []
    monkeypatch.setattr(two_stage, "generate", lambda *a: weights.append(weight()) or torch.zeros(2, 3, 2, 8, 8))

    def weight():
        return two_stage.denoiser.decoder.weight.detach().clone()

    ema = EMA(decay=0.9)
    trainer(ema, SampleLogger(every_n_steps=4, num_samples=2)).fit(two_stage, datamodule=data)
    assert torch.equal(weights[0], ema.shadow["denoiser.decoder.weight"])
    assert not torch.equal(weights[0], weight())


def test_training_is_the_same_with_and_without(trainer, data):
    ends = []
    for callbacks in ([], [SampleLogger(every_n_steps=1, num_samples=2)]):
        torch.manual_seed(0)
        model = ToyAutoencoder(data.clip_spec, ToyNetwork())
        trainer(StepSeed(0), *callbacks).fit(model, datamodule=data)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_more_samples_than_clips(trainer, model, data, tmp_path):
    trainer(SampleLogger(every_n_steps=4, num_samples=50)).fit(model, datamodule=data)
    facts = json.loads((tmp_path / "samples" / "step_00000004_reconstructions.json").read_text())
    assert len(facts["captions"]) == 4


class Mute(SingleLossModule):
    """Neither samples nor reconstructs."""

    def __init__(self, clip_spec):
        super().__init__(clip_spec)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def loss(self, batch):
        return {"loss": (batch["video"].mean() - self.weight).square().sum()}


def test_a_model_that_can_do_neither_is_named_once(trainer, data, tmp_path, caplog):
    with caplog.at_level("INFO"):
        trainer(SampleLogger(every_n_steps=1)).fit(Mute(data.clip_spec), datamodule=data)
    assert sum("Mute neither samples nor reconstructs" in record.message for record in caplog.records) == 1
    assert not (tmp_path / "samples").exists()
