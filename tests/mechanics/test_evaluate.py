"""`vgen validate|test|predict`: they find the checkpoint of a stage in the run directory."""

import json
import shutil

import pytest
import torch

from tests.mechanics.runs import checkpoint, checkpoint_path, command, leaves
from vgen.cli.main import main
from vgen.video.io import probe


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "toy")


def call(name, run, *arguments, code=0):
    assert main(command(run, *arguments, command=name)) == code


@pytest.mark.parametrize("stage", ["autoencoder", None])
@pytest.mark.parametrize("name", ["validate", "test"])
def test_losses_of_a_stage(run, capsys, name, stage):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    call(name, run, *(["--stage", stage] if stage else []))
    out = capsys.readouterr().out
    results = json.loads(out[out.index("[\n") :])[0]
    key = "val" if name == "validate" else "test"
    assert set(results) == ({f"{key}/loss", f"{key}/mse"} if stage else {f"{key}/loss"})
    assert 0 < results[f"{key}/loss"] < 10
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_the_average_is_measured_as_in_training(finished, run, capsys):
    """The validation of a finished run repeats the number that training logged for those weights."""
    from tests.mechanics.runs import fit, rows

    fit(run, "--overwrite", "--only", "autoencoder", "--all_stages.trainer.max_steps=5")
    capsys.readouterr()
    call("validate", run, "--stage", "autoencoder")
    out = capsys.readouterr().out
    logged = float(next(row["val/loss"] for row in rows(run, "autoencoder") if row["val/loss"]))
    assert json.loads(out[out.index("[\n") :])[0]["val/loss"] == pytest.approx(logged, rel=1e-5)


def test_without_the_average(run, capsys):
    results = []
    for recipe in ("", "[]"):
        call("validate", run, *([f"--stages.diffusion.trainer.callbacks={recipe}"] if recipe else []))
        out = capsys.readouterr().out
        results.append(json.loads(out[out.index("[\n") :])[0]["val/loss"])
    assert results[0] != results[1]


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_predict_writes_one_video_per_clip(run, stage):
    call("predict", run, "--stage", stage)
    files = sorted((run / stage / "predictions").glob("*.mp4"))
    assert [path.stem for path in files] == [f"{index:06d}" for index in range(4)]
    assert all(probe(path).frames == 2 for path in files)


def test_predict_numbers_an_uneven_last_batch(run):
    call("predict", run, "--stage", "autoencoder", "--stages.autoencoder.data.batch_size=3")
    assert len(list((run / "autoencoder" / "predictions").glob("*.mp4"))) == 4


def test_the_weights_stay_what_they_were(run):
    before = leaves(checkpoint(run))
    for name in ("validate", "predict"):
        call(name, run)
    after = leaves(checkpoint(run))
    assert all(torch.equal(after[k], v) if isinstance(v, torch.Tensor) else after[k] == v for k, v in before.items())


@pytest.mark.parametrize("name", ["validate", "test", "predict"])
def test_an_untrained_stage_is_named(run, capsys, name):
    checkpoint_path(run).unlink()
    call(name, run, code=2)
    message = capsys.readouterr().err
    assert "stage 'diffusion' has no checkpoint" in message and "where:" in message and "vgen fit" in message


def test_an_unknown_stage_is_named(run, capsys):
    call("test", run, "--stage", "difusion", code=2)
    assert "did you mean 'diffusion'" in capsys.readouterr().err


def test_a_recipe_that_fits_no_longer(run, capsys):
    call("validate", run, "--stages.diffusion.model.denoiser.dim=7", code=2)
    message = capsys.readouterr().err
    assert "error:" in message and "denoiser.encoder.0.weight" in message and "Traceback" not in message


def test_training_options_do_not_belong_here(run, capsys):
    call("validate", run, "--resume", code=2)
    assert "--resume" in capsys.readouterr().err


def test_predicted_clips_do_not_depend_on_the_batch_size(run, tmp_path):
    call("predict", run)
    first = {path.name: path.read_bytes() for path in (run / "diffusion" / "predictions").iterdir()}
    call("predict", run, "--stages.diffusion.data.batch_size=3")
    assert {path.name: path.read_bytes() for path in (run / "diffusion" / "predictions").iterdir()} == first
    assert len(set(first.values())) == 4
