"""Numbers of a protocol during training, which must not notice."""

import json
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from tests.mechanics.toy import ToyAutoencoder, ToyDiffusion, ToyNetwork
from tests.tiny_detector import write_classifier
from vgen.callbacks import EMA, Evaluate, MetricsCSV
from vgen.errors import UserError
from vgen.metrics import load_protocol
from vgen.metrics.frames import psnr
from vgen.metrics.selection import Selection
from vgen.metrics.sources import RecordClips
from vgen.video import to_float, to_uint8


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("detector"), side=8, frames=2)


@pytest.fixture
def protocol(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text("n_frames: 2\nn_real: 8\nn_fake: 4\nsplit: train\nmetrics: [fvd, vb_temporal_flickering]\n")
    return str(path)


@pytest.fixture
def evaluate(protocol, detector):
    def make(every=2, **options):
        options = {"detectors": {"i3d": detector}, "cache": None, "batch": 3, **options}
        return Evaluate(protocol, every, **options)

    return make


def records(folder, protocol="toy"):
    return {
        int(path.stem.removeprefix("step_")): json.loads(path.read_text())
        for path in sorted((folder / "evaluation" / protocol).glob("*.json"))
    }


def test_numbers_of_every_few_steps(trainer, two_stage, data, tmp_path, evaluate):
    logger = MetricsCSV(str(tmp_path))
    trainer(EMA(0.5), evaluate(), logger=[logger], max_steps=5).fit(two_stage, datamodule=data)
    found = records(tmp_path)
    assert list(found) == [2, 4, 5]
    assert set(found[2]["metrics"]) == {"frechet_small/toy", "vb_temporal_flickering/toy"}
    assert found[2]["metrics"]["frechet_small/toy"]["floor"]["value"] > 0
    generated = found[4]["settings"]["generated"]
    assert generated["clips"] == 4 and generated["settings"]["model"]["step"] == 4
    assert generated["settings"]["conditions"]["split"] == "val"
    assert not list(tmp_path.rglob("samples-*")), "the clips are gone"
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("frechet_small/toy")
    logged = {row.split(",")[0]: row.split(",")[column] for row in lines[1:] if row.split(",")[column:][:1] != [""]}
    values = {step: record["metrics"]["frechet_small/toy"]["value"] for step, record in found.items()}
    assert {int(step): float(value) for step, value in logged.items() if value} == pytest.approx(values, rel=1e-6)


class Draws(Callback):
    """Keeps the state of all random numbers at the end of every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append((torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()))


def trained(trainer, data, *callbacks):
    """A training whose dropout draws from the global state: without `StepSeed`, nothing would hide a changed one."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    codec = ToyAutoencoder(data.clip_spec, ToyNetwork(dim=6))
    model = ToyDiffusion(data.clip_spec, ToyNetwork(dropout=0.5), codec)
    draws, ema = Draws(), EMA(0.5)
    made = trainer(ema, draws, *callbacks)
    made.fit(model, datamodule=data)
    optimizer = [s for state in made.optimizers[0].state_dict()["state"].values() for s in state.values()]
    modes = {name: part.training for name, part in model.named_modules()}
    return model.state_dict(), ema.shadow, optimizer, modes, draws.seen


def test_training_is_the_same_with_and_without(trainer, data, evaluate):
    plain, measured = trained(trainer, data), trained(trainer, data, evaluate(every=1))
    for one, other in zip(plain[:2], measured[:2], strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(a, b) for a, b in zip(plain[2], measured[2], strict=True))
    assert plain[3] == measured[3] and plain[4] == measured[4]


def test_the_average_is_measured(trainer, two_stage, data, evaluate, monkeypatch):
    weights, generate = [], two_stage.generate

    def recording(*arguments):
        weights.append(two_stage.denoiser.decoder.weight.detach().clone())
        return generate(*arguments)

    monkeypatch.setattr(two_stage, "generate", recording)
    ema = EMA(0.9)
    trainer(ema, evaluate(every=4)).fit(two_stage, datamodule=data)
    assert len(weights) == 2 and all(torch.equal(w, ema.shadow["denoiser.decoder.weight"]) for w in weights)
    assert not torch.equal(weights[0], two_stage.denoiser.decoder.weight)


def test_clips_that_cannot_be_measured_do_not_end_a_training(trainer, two_stage, data, evaluate, tmp_path, monkeypatch):
    nothing = torch.full((3, 3, 2, 8, 8), float("nan"))
    monkeypatch.setattr(two_stage, "generate", lambda conditions, n, *rest: nothing[:n])
    with pytest.warns(UserWarning, match="no numbers at step 4: frame 0 is not finite"):
        trainer(evaluate(every=4)).fit(two_stage, datamodule=data)
    assert not records(tmp_path) and not list(tmp_path.rglob("samples-*"))


def test_counts_are_part_of_the_name(trainer, two_stage, data, evaluate, tmp_path):
    trainer(evaluate(every=4, clips=2, real_clips=3, floor=False)).fit(two_stage, datamodule=data)
    name = "toy+n_real=3+n_fake=2"
    assert set(records(tmp_path, name)[4]["metrics"]) == {f"frechet_small/{name}", f"vb_temporal_flickering/{name}"}


def test_reconstructions_of_a_first_stage(trainer, model, data, detector, tmp_path):
    path = tmp_path / "mirror.yaml"
    path.write_text("n_frames: 2\nn_real: 5\nmade: reconstructions\nsplit: train\nmetrics: [rfvd, psnr/clip]\n")
    measured = Evaluate(str(path), 4, detectors={"i3d": detector}, cache=None, batch=2)
    trainer(measured, max_steps=4).fit(model, datamodule=data)
    (record,) = records(tmp_path, "mirror").values()
    assert record["metrics"]["frechet_reconstruction_small/mirror"]["n"] == 5
    clips = RecordClips.of(data.whole_clips("train"))
    chosen = Selection(clips, load_protocol(path)).real()
    real = torch.stack([clips.clip(clip.video, clip.frames) for clip in chosen])
    made = to_uint8(model.eval().reconstruct({"video": to_float(real)}))
    expected = psnr(made / 255, real / 255, "clip").mean()
    assert record["metrics"]["psnr/clip/mirror"]["value"] == pytest.approx(float(expected), rel=1e-6)
    assert not list(tmp_path.rglob("samples-*"))


def test_mistakes_come_before_the_first_step(trainer, model, two_stage, data, evaluate, protocol, tmp_path, caplog):
    with pytest.raises(UserError, match="no protocol 'stylegan_v_61'") as raised:
        Evaluate("stylegan_v_61", 10)
    assert "stylegan_v_16" in raised.value.hint
    with pytest.raises(UserError, match="at least 1"):
        evaluate(every=0)
    with pytest.raises(UserError, match="no detector 'flow'"):
        evaluate(detectors={"flow": "random"})
    with pytest.raises(UserError, match="I3D of Kinetics-400"):
        trainer(Evaluate(protocol, 2, cache=None)).fit(two_stage, datamodule=data)
    long = tmp_path / "long.yaml"
    long.write_text("n_frames: 16\n")
    with pytest.raises(UserError, match="no real video has the 16 frames"):
        trainer(Evaluate(str(long), 2)).fit(two_stage, datamodule=data)
    with caplog.at_level("INFO"):
        trainer(evaluate()).fit(model, datamodule=data)
    assert sum("does not generate clips" in record.message for record in caplog.records) == 1
