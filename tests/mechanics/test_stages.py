"""Stages chained by one command: what goes from one to the next, what is left behind, what is skipped and refused."""

import json
import shutil

import pytest
import yaml

from tests.mechanics.runs import RECIPE, assert_same, checkpoint, checkpoint_path, fit, leaves, rows
from vgen.files import sha256


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(finished, tmp_path / "toy")


def trained(capsys):
    """Stages that the command has trained, in order."""
    lines = capsys.readouterr().out.splitlines()
    return [line.split("]")[0].removeprefix("[") for line in lines if "] done: step" in line]


def test_what_a_run_leaves(finished):
    files = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    common = ("config.yaml", "done.json", "environment.json", "metrics.csv", "run_id", "checkpoints/last.ckpt")
    samples = [f"samples/step_{step:08d}_samples.{kind}" for step in (4, 7) for kind in ("mp4", "json")]
    assert files == {
        "config.yaml",
        *(f"autoencoder/{name}" for name in (*common, "checkpoints/best.ckpt")),
        *(f"diffusion/{name}" for name in (*common, *samples)),
    }


def test_done_says_what_was_trained(finished):
    for stage in ("autoencoder", "diffusion"):
        done = json.loads((finished / stage / "done.json").read_text())
        assert (done["stage"], done["step"], done["clips"]) == (stage, 7, 14)
        assert done["sha256"] == sha256(finished / stage / done["last"])
        assert done["best"] == ("checkpoints/best.ckpt" if stage == "autoencoder" else None)
        assert done["seconds"] == pytest.approx(float(rows(finished, stage, timed=True)[-1]["seconds"]), abs=0.1)


def test_environment(finished):
    facts = json.loads((finished / "diffusion" / "environment.json").read_text())
    counts = [3 * dim + dim + 2 * dim + dim * 3 + 3 for dim in (5, 6)]
    assert facts["parameters"] == [["denoiser", counts[0]], ["codec (frozen)", counts[1]]]
    assert facts["world_size"] == 1 and facts["versions"]["torch"] and facts["data"]["fingerprint"] == "toy"


def test_numbers(finished):
    table = rows(finished, "autoencoder")
    steps = [(row["step"], row["clips"]) for row in table if row["train/loss"]]
    assert steps == [(str(i), str(2 * i)) for i in range(1, 8)]
    assert [row["step"] for row in table if row["val/loss"]] == ["5"]
    assert float(table[0]["train/loss"]) == float(table[0]["train/mse"])


def test_the_second_stage_has_the_first_ones_file(finished):
    codec = checkpoint(finished)["vgen"]["init_args"]["codec"]
    digest = sha256(checkpoint_path(finished, "autoencoder"))
    assert codec == {"path": "run://autoencoder/checkpoints/last.ckpt", "weights": "raw", "sha256": digest}


def test_the_best_checkpoint_can_be_handed_over(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.read_text().replace("stage://autoencoder/last", "stage://autoencoder/best"))
    run = fit(tmp_path / "toy", recipe=recipe)
    assert checkpoint(run)["vgen"]["init_args"]["codec"]["path"] == "run://autoencoder/checkpoints/best.ckpt"
    best = checkpoint(run, "autoencoder", "best")
    assert best["global_step"] == 5  # of the only validation, and not of a checkpoint after it
    used = checkpoint(run)["vgen"]["init_args"]["codec"]["sha256"]
    assert used == sha256(checkpoint_path(run, "autoencoder", "best"))


def test_the_average_can_be_handed_over(finished, tmp_path):
    import torch

    import vgen
    from tests.mechanics.runs import differences

    run = fit(tmp_path / "toy", "--stages.diffusion.model.codec.weights=ema")
    average = checkpoint(run, "autoencoder")["callbacks"]["EMA"]["shadow"]
    codec = dict(vgen.load(run).codec.network.named_parameters())
    assert all(torch.equal(codec[name], value) for name, value in average.items())
    assert differences(checkpoint(finished)["state_dict"], checkpoint(run)["state_dict"])


def test_one_stage_after_the_other_is_the_same_as_both(finished, tmp_path, capsys):
    run = fit(tmp_path / "toy", "--only", "autoencoder")
    assert not (run / "diffusion").exists()
    fit(run, "--only", "diffusion")
    assert trained(capsys) == ["autoencoder", "diffusion"]
    assert_same(finished, run)


def test_the_second_stage_alone_needs_the_first(tmp_path, capsys):
    fit(tmp_path / "toy", "--only", "diffusion", code=2)
    message = capsys.readouterr().err
    assert "needs stage 'autoencoder'" in message and "--only autoencoder" in message
    assert not (tmp_path / "toy").exists()


def test_a_used_directory_is_refused(run, capsys):
    before = leaves(checkpoint(run)["state_dict"])
    fit(run, code=2)
    message = capsys.readouterr().err
    assert "not empty" in message and "--resume" in message and "--overwrite" in message
    assert leaves(checkpoint(run)["state_dict"]).keys() == before.keys() and len(rows(run)) == 8


@pytest.mark.parametrize("stray", ["diffusion/samples/old.mp4", "notes.txt"])
def test_a_stray_file_counts(tmp_path, stray):
    path = tmp_path / "toy" / stray
    path.parent.mkdir(parents=True)
    path.touch()
    fit(tmp_path / "toy", code=2)
    assert not (tmp_path / "toy" / "config.yaml").exists()


def test_finished_stages_are_skipped(run, capsys):
    old = checkpoint_path(run).stat().st_mtime_ns
    fit(run, "--resume")
    assert trained(capsys) == [] and checkpoint_path(run).stat().st_mtime_ns == old


def test_a_finished_stage_stays_what_it_was(run, capsys):
    """The recipe has changed since: that is said, and the run's configuration does not claim it."""
    dim = "--stages.autoencoder.model.network.dim=7"
    shutil.rmtree(run / "diffusion")
    before = yaml.safe_load((run / "config.yaml").read_text())["stages"]["autoencoder"]
    fit(run, "--resume", dim, "--stages.diffusion.model.denoiser.dim=4")
    lines = capsys.readouterr().out.splitlines()
    changed = [line for line in lines if "differ" in line]
    assert changed == ["[autoencoder] kept as trained, but now differ: model.init_args.network.init_args.dim"]
    stages = yaml.safe_load((run / "config.yaml").read_text())["stages"]
    assert stages["autoencoder"] == before
    assert stages["diffusion"]["model"]["init_args"]["denoiser"]["init_args"]["dim"] == 4
    assert checkpoint(run, "autoencoder")["vgen"]["init_args"]["network"]["init_args"]["dim"] == 6


def test_an_interrupted_stage_says_what_is_new(run, capsys):
    (run / "diffusion" / "done.json").unlink()
    fit(run, "--resume", "--stages.diffusion.trainer.max_steps=8")
    assert "[diffusion] goes on with other settings than before: trainer.max_steps" in capsys.readouterr().out


def test_a_trial_run_of_two_stages(tmp_path, capsys):
    fit(tmp_path / "toy", "--all_stages.trainer.fast_dev_run=true", code=2)
    assert "fast_dev_run writes none" in capsys.readouterr().err and not (tmp_path / "toy").exists()
    fit(tmp_path / "toy", "--all_stages.trainer.fast_dev_run=true", "--only", "autoencoder")


def test_only_what_is_missing_is_trained(finished, run, capsys):
    shutil.rmtree(run / "diffusion")
    fit(run, "--resume")
    assert trained(capsys) == ["diffusion"]
    assert_same(finished, run)


def test_resume_also_starts_a_new_run(finished, tmp_path, capsys):
    assert_same(finished, fit(tmp_path / "toy", "--resume"))
    assert trained(capsys) == ["autoencoder", "diffusion"]


def test_overwrite_begins_anew(finished, run, capsys):
    for stray in ("autoencoder/samples/old.mp4", "diffusion/checkpoints/last-v1.ckpt", "generated/old.mp4"):
        (run / stray).parent.mkdir(exist_ok=True)
        (run / stray).touch()
    fit(run, "--overwrite")
    assert trained(capsys) == ["autoencoder", "diffusion"]
    assert not list(run.rglob("old.mp4")) and not list(run.rglob("*-v1*"))
    assert_same(finished, run)


def test_overwrite_of_one_stage_leaves_the_other(finished, run, capsys):
    old = checkpoint_path(run, "autoencoder").stat().st_mtime_ns
    fit(run, "--overwrite", "--only", "diffusion")
    assert trained(capsys) == ["diffusion"] and checkpoint_path(run, "autoencoder").stat().st_mtime_ns == old
    assert_same(finished, run)


def test_overwrite_deletes_nothing_before_it_is_known_to_work(run, capsys):
    shutil.rmtree(run / "autoencoder")
    fit(run, "--overwrite", "--only", "diffusion", code=2)
    assert "needs stage 'autoencoder'" in capsys.readouterr().err
    assert checkpoint_path(run).is_file()


def test_a_mistake_costs_no_finished_run(run, capsys):
    fit(run, "--overwrite", "--all_stages.data.root=nowhere", code=2)
    assert "nowhere" in capsys.readouterr().err
    assert checkpoint_path(run).is_file() and checkpoint_path(run, "autoencoder").is_file()


def test_more_steps_in_the_second_stage_alone(run, capsys):
    fit(run, "--resume", "--stages.diffusion.trainer.max_steps=9")
    assert trained(capsys) == ["diffusion"]
    assert checkpoint(run)["global_step"] == 9
    assert [row["step"] for row in rows(run) if row["train/loss"]] == [str(i) for i in range(1, 10)]
    assert json.loads((run / "diffusion" / "done.json").read_text())["step"] == 9


def test_more_steps_in_the_first_stage_need_a_new_second_one(finished, run, capsys):
    """The second stage was trained on a codec that would be no more: going on with it would mix two."""
    longer = "--stages.autoencoder.trainer.max_steps=9"
    fit(run, "--resume", longer, code=2)
    message = capsys.readouterr().err
    assert "was trained on stage 'autoencoder'" in message and "--overwrite --only diffusion" in message
    assert checkpoint(run, "autoencoder")["global_step"] == 7
    fit(run, "--resume", longer, "--only", "autoencoder")
    fit(run, "--resume", longer, code=2)
    assert "another 'autoencoder'" in capsys.readouterr().err
    fit(run, "--overwrite", longer, "--only", "diffusion")
    assert_same(run, fit(run.parent / "other", longer))


def test_nothing_is_left_behind_by_a_mistake(tmp_path, capsys):
    """So that the mended command needs no --overwrite."""
    fit(tmp_path / "toy", "--stages.diffusion.data.root=nowhere", code=2)
    message = capsys.readouterr().err
    assert "nowhere" in message and "stages.diffusion.data" in message
    assert not (tmp_path / "toy").exists()


def test_warm_start(finished, tmp_path, capsys):
    import torch

    source = checkpoint_path(finished, "autoencoder")
    start = f"--stages.autoencoder.init_from={{path: {source}, include: [network.encoder]}}"
    run = fit(tmp_path / "toy", "--only", "autoencoder", "--all_stages.trainer.max_steps=1", start)
    assert "warm start: 7 tensors" in capsys.readouterr().out
    old, new = checkpoint(finished, "autoencoder")["state_dict"], checkpoint(run, "autoencoder")["state_dict"]
    # One step from there: the same running statistics but for one batch, and a fresh optimiser.
    key = "network.encoder.1.num_batches_tracked"
    assert new[key] == old[key] + 1
    assert torch.allclose(new["network.encoder.0.weight"], old["network.encoder.0.weight"], atol=0.02)
    assert not torch.allclose(new["network.decoder.weight"], old["network.decoder.weight"], atol=0.02)
    assert checkpoint(run, "autoencoder")["global_step"] == 1


def test_warm_start_happens_once(finished, tmp_path, monkeypatch):
    """A resumed stage goes on from its own checkpoint and not from where it began."""
    source = checkpoint_path(finished, "autoencoder")
    arguments = ("--only", "autoencoder", f"--stages.autoencoder.init_from.path={source}")
    whole = fit(tmp_path / "whole", *arguments)
    monkeypatch.setenv("TOY_TRAP", "autoencoder:5:raise")
    run = fit(tmp_path / "stopped", *arguments, code=1)
    monkeypatch.delenv("TOY_TRAP")
    assert_same(whole, fit(run, *arguments, "--resume"), ["autoencoder"])


def test_a_recipe_with_one_stage(tmp_path):
    recipe = yaml.safe_load(RECIPE.read_text())
    del recipe["stages"]["diffusion"]
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    run = fit(tmp_path / "toy", recipe=path)
    assert checkpoint(run, "autoencoder")["global_step"] == 7 and not (run / "diffusion").exists()
