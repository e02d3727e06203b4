"""A run that was stopped anywhere ends, by the same command with --resume, as if nothing had happened."""

import csv
import signal

import pytest
import torch

from tests.mechanics.processes import apart
from tests.mechanics.runs import (
    RECIPE,
    assert_same,
    checkpoint,
    checkpoint_path,
    differences,
    fit,
    rows,
)

WORKERS = "--all_stages.data.num_workers=2"


def stop(run_dir, monkeypatch, where, *arguments, code=1, recipe=RECIPE):
    """Runs into the trap in this process."""
    monkeypatch.setenv("TOY_TRAP", where)
    fit(run_dir, *arguments, recipe=recipe, code=code)
    monkeypatch.delenv("TOY_TRAP")


def variant(tmp_path, **changes):
    """The recipe with another checkpoint interval."""
    text = RECIPE.read_text()
    for key, value in changes.items():
        assert f"{key}: 2" in text
        text = text.replace(f"{key}: 2", f"{key}: {value}")
    path = tmp_path / "variant.yaml"
    path.write_text(text)
    return path


def test_the_comparison_sees_one_changed_bit(finished, tmp_path):
    one, other = checkpoint(finished), checkpoint(finished)
    assert not differences(one, other)
    weight = next(v for v in other["state_dict"].values() if v.is_floating_point())
    weight.view(torch.int32).flatten()[0] ^= 1
    assert len(differences(one, other)) == 1


def test_two_runs_of_one_recipe_are_the_same(finished, tmp_path):
    assert_same(finished, fit(tmp_path / "again"))


def test_another_seed_is_another_run(finished, tmp_path):
    other = fit(tmp_path / "other", "--all_stages.seed_everything=4", "--only", "autoencoder")
    one, two = (checkpoint(run, "autoencoder")["state_dict"] for run in (finished, other))
    assert differences(one, two)


def test_workers_change_nothing(finished, tmp_path):
    assert_same(finished, fit(tmp_path / "workers", WORKERS))


# Steps: before the first checkpoint, right behind one, between two, at an epoch's end (5), in the second epoch.
@pytest.mark.parametrize("where", ["autoencoder:1", "autoencoder:5", "diffusion:2", "diffusion:3", "diffusion:6"])
def test_resume_in_both_stages(finished, tmp_path, monkeypatch, where):
    run = tmp_path / "toy"
    stop(run, monkeypatch, f"{where}:raise")
    assert_same(finished, fit(run, "--resume"))


def test_killed_in_both_stages(finished, tmp_path):
    """SIGKILL with worker processes: nothing can be tidied up."""
    run = tmp_path / "toy"
    for where in ("autoencoder:3:kill", "diffusion:5:kill"):
        codes, output = apart(run, WORKERS, "--resume", TOY_TRAP=where)
        assert codes == [-signal.SIGKILL], output
    assert not (run / "diffusion" / "done.json").exists()
    assert checkpoint(run)["global_step"] == 4
    assert_same(finished, fit(run, WORKERS, "--resume"))
    steps = [row["step"] for row in rows(run) if row["train/loss"]]
    assert steps == [str(step) for step in range(1, 8)]


def test_resume_at_the_end_of_an_epoch(tmp_path, monkeypatch):
    """The checkpoint of step 5 is the last thing of an epoch, its validation included."""
    recipe = variant(tmp_path, every_n_steps=5)
    arguments = ("--all_stages.trainer.max_steps=11", "--only", "autoencoder")
    whole = fit(tmp_path / "whole", *arguments, recipe=recipe)
    run = tmp_path / "stopped"
    stop(run, monkeypatch, "autoencoder:7:raise", *arguments, recipe=recipe)
    assert checkpoint(run, "autoencoder")["global_step"] == 5
    assert_same(whole, fit(run, *arguments, "--resume", recipe=recipe), ["autoencoder"], ["last", "best"])


@pytest.mark.parametrize("limit", ["max_steps=20", "max_epochs=4"])
@pytest.mark.parametrize(
    "validation",
    [
        "limit_val_batches=0",
        "check_val_every_n_epoch=2",
        "limit_val_batches=1.0",
        "val_check_interval=4 check_val_every_n_epoch=null",
    ],
)
def test_stopped_again_and_again_at_epochs_ends(tmp_path, monkeypatch, validation, limit):
    """Each resume counts the epochs right, so that the training is not longer than it should be."""
    recipe = variant(tmp_path, every_n_steps=5)
    limit = ("--all_stages.trainer.max_steps=-1", f"--all_stages.trainer.{limit}")
    arguments = (
        *limit,
        *(f"--all_stages.trainer.{setting}" for setting in validation.split()),
        "--only",
        "autoencoder",
    )
    whole = fit(tmp_path / "whole", *arguments, recipe=recipe)
    run = tmp_path / "stopped"
    for step in (7, 12, 17):
        stop(run, monkeypatch, f"autoencoder:{step}:raise", "--resume", *arguments, recipe=recipe)
        assert checkpoint(run, "autoencoder")["global_step"] == step - 2
    assert_same(whole, fit(run, *arguments, "--resume", recipe=recipe), ["autoencoder"])
    assert checkpoint(run, "autoencoder")["global_step"] == 20


@pytest.mark.parametrize(
    "settings",
    [
        ["--all_stages.trainer.accumulate_grad_batches=2", "--all_stages.trainer.max_steps=6"],
        ["--all_stages.trainer.val_check_interval=2"],
        ["--all_stages.trainer.limit_train_batches=3"],
        ["--all_stages.trainer.max_epochs=2", "--all_stages.trainer.max_steps=-1"],
        ["--all_stages.trainer.val_check_interval=3", "--all_stages.trainer.check_val_every_n_epoch=null"],
    ],
    ids=lambda settings: settings[0].split(".")[-1],
)
def test_resume_under_other_ways_of_training(tmp_path, monkeypatch, settings):
    arguments = [*settings, "--only", "autoencoder"]
    whole = fit(tmp_path / "whole", *arguments)
    run = tmp_path / "stopped"
    stop(run, monkeypatch, "autoencoder:5:raise", *arguments)
    assert_same(whole, fit(run, *arguments, "--resume"), ["autoencoder"])


def test_interrupted_by_the_keyboard(finished, tmp_path, monkeypatch, capsys):
    run = tmp_path / "toy"
    stop(run, monkeypatch, "autoencoder:3:interrupt", code=130)
    assert "--resume" in capsys.readouterr().err
    assert not (run / "autoencoder" / "done.json").exists() and not (run / "diffusion").exists()
    assert_same(finished, fit(run, "--resume"))


@pytest.mark.parametrize("steps", [3, 5])  # within an epoch, and at its end
def test_more_steps_go_on_as_if_the_run_had_been_longer(finished, tmp_path, steps):
    run = fit(tmp_path / "toy", f"--all_stages.trainer.max_steps={steps}", "--only", "autoencoder")
    assert checkpoint(run, "autoencoder")["global_step"] == steps
    fit(run, "--only", "autoencoder", "--resume")
    assert_same(finished, run, ["autoencoder"])


def test_more_epochs_go_on_as_if_the_run_had_been_longer(tmp_path):
    arguments = ("--all_stages.trainer.max_steps=-1", "--only", "autoencoder")
    whole = fit(tmp_path / "whole", *arguments, "--all_stages.trainer.max_epochs=2")
    run = fit(tmp_path / "toy", *arguments, "--all_stages.trainer.max_epochs=1")
    fit(run, *arguments, "--all_stages.trainer.max_epochs=2", "--resume")
    assert_same(whole, run, ["autoencoder"])


def test_the_last_step_is_always_saved(finished, tmp_path):
    for stage in ("autoencoder", "diffusion"):  # seven steps, a checkpoint every two
        assert checkpoint(finished, stage)["global_step"] == 7
        assert checkpoint(finished, stage)["vgen"]["clips"] == 14


def test_without_an_interval_every_epoch_is_saved(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.read_text().replace("{every_n_steps: 2, monitor: val/loss}", "{}"))
    run = tmp_path / "toy"
    stop(run, monkeypatch, "autoencoder:6:raise", recipe=recipe)
    assert checkpoint(run, "autoencoder")["global_step"] == 5
    assert not checkpoint_path(run, "autoencoder", "best").exists()


@pytest.mark.parametrize("limit", ["max_steps=17", "max_epochs=4"])
def test_checkpoints_of_whole_epochs_resume_exactly(tmp_path, monkeypatch, limit):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.read_text().replace("{every_n_steps: 2, monitor: val/loss}", "{monitor: val/loss}"))
    arguments = ("--all_stages.trainer.max_steps=-1", f"--all_stages.trainer.{limit}", "--only", "autoencoder")
    whole = fit(tmp_path / "whole", *arguments, recipe=recipe)
    run = tmp_path / "stopped"
    for step in (8, 11):
        stop(run, monkeypatch, f"autoencoder:{step}:raise", "--resume", *arguments, recipe=recipe)
    assert_same(whole, fit(run, *arguments, "--resume", recipe=recipe), ["autoencoder"], ["last", "best"])


def test_seconds_go_on_over_a_resume(tmp_path, monkeypatch):
    run = tmp_path / "toy"
    stop(run, monkeypatch, "autoencoder:5:raise")
    path = run / "autoencoder" / "metrics.csv"
    # As if the first part had taken an hour.
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(row | {"seconds": str(3600 + float(row["seconds"]))} for row in table)
    fit(run, "--only", "autoencoder", "--resume")
    seconds = [float(row["seconds"]) for row in rows(run, "autoencoder", timed=True)]
    assert seconds == sorted(seconds) and seconds[0] >= 3600


def test_a_truncated_checkpoint_is_named(tmp_path, monkeypatch, capsys):
    run = tmp_path / "toy"
    stop(run, monkeypatch, "autoencoder:5:raise")
    path = checkpoint_path(run, "autoencoder")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    fit(run, "--resume", code=2)
    message = capsys.readouterr().err
    assert "error:" in message and str(path) in message
