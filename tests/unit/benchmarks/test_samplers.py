"""Samplers are compared on a tiny, untrained model: it goes on, refuses what does not fit, writes what it found."""

import json

import pytest
import torch

from benchmarks import samplers
from benchmarks.samplers import CONTINUOUS, DISCRETE, Entry, sampler_of
from vgen.diffusion import DDPM, ContinuousDiffusion, GaussianDiffusion, Karras, KarrasSampler
from vgen.errors import UserError
from vgen.models.score import Preconditioned, ScoreModel, ScoreUNet3D
from vgen.models.vidm import Layout, MotionGenerator, VIDMMotion
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export, write_export

pytest.importorskip("sklearn")


def exported(model, folder):
    header = {**describe_model(model, model.clip_spec, None), "stage": "motion", "clips": 0}
    folder.mkdir()
    write_export(Export(header, model.state_dict()), folder)
    return str(folder)


def command(run, *more):
    short = ["--clips", "6", "--batch", "4", "--judge-clips", "20", "--judge-steps", "3"]
    return samplers.main([run, "--size", "16", "--frames", "3", *short, *more])


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    layout = Layout(32, 1, (), (1,), num_head_channels=16, video_timesteps=8)
    network = MotionGenerator(layout, learned_variance=False)
    process = GaussianDiffusion("linear", steps=20)
    return exported(VIDMMotion(ClipSpec(3, 16, 16), network, diffusion=process), tmp_path_factory.mktemp("x") / "run")


def test_a_run_is_compared_and_goes_on(motion, tmp_path, capsys, monkeypatch):
    out, asked = tmp_path / "out", ["--samplers", "ancestral", "ddim", "--calls", "2", "5"]
    assert command(motion, *asked[:3], "--calls", "2", "--out", str(out)) == 0
    made = []
    generate = samplers.generate
    monkeypatch.setattr(samplers, "generate", lambda *args: made.append(args[1]) or generate(*args))
    assert command(motion, *asked, "--out", str(out)) == 0
    assert [type(sampler).__name__ for sampler in made] == ["RespacedDDPM", "DDIM"], "2 were there"
    rows = json.loads((out / "samplers.json").read_text())["rows"]
    assert [(row["sampler"], row["calls"]) for row in rows] == [
        ("ancestral", 2),
        ("ddim", 2),
        ("ancestral", 5),
        ("ddim", 5),
    ]
    assert all(row["n"] == 6 and row["seconds"] > 0 and row["frechet_small"] >= 0 for row in rows)
    text = (out / "samplers.md").read_text()
    assert text.count("\n| ") >= 4 and "Real clips" in text
    assert (out / "samplers.png").read_bytes().startswith(b"\x89PNG")
    assert command(motion, *asked, "--seed", "1", "--out", str(out)) == 2
    assert "another comparison lies there" in capsys.readouterr().out


def test_single_frames_of_a_continuous_model(tmp_path):
    torch.manual_seed(0)
    network = Preconditioned(ScoreUNet3D(3, 8, (1, 2), 2, 8, groups=4, dropout=0.0))
    process = ContinuousDiffusion(Karras(), "x0", label="sigma")
    model = ScoreModel(ClipSpec(3, 16, 16), network, process, KarrasSampler(2))
    out = tmp_path / "out"
    line = ["--single-frames", "--samplers", "euler", "heun", "--calls", "3", "--out", str(out)]
    assert command(exported(model, tmp_path / "run"), *line) == 0
    rows = json.loads((out / "samplers.json").read_text())["rows"]
    assert [(row["sampler"], row["calls"]) for row in rows] == [("euler", 3), ("heun", 3)]


def test_every_sampler_takes_the_calls_it_is_asked_for():
    discrete, continuous = GaussianDiffusion("linear"), ContinuousDiffusion()
    for process, table in ((discrete, DISCRETE), (continuous, CONTINUOUS)):
        for name in table:
            for calls in (5, 10, 20, 50):
                assert abs(sampler_of(Entry(name, calls), process).calls(process) - calls) <= 1
    assert type(sampler_of(Entry("ancestral", 1000), discrete)) is DDPM
    for entry, match in (
        (Entry("ddim", 1000), "fewer than all 1000"),
        (Entry("heun", 5), "none of this process's"),
        (Entry("ancestral", 2000), "has 1000 steps"),
    ):
        with pytest.raises(UserError, match=match):
            sampler_of(entry, discrete)
