"""`vgen fit` as a person meets it: what it prints, how it ends, and what it adds to a recipe by itself."""

import subprocess
import sys

import pytest
import yaml

from tests.mechanics.runs import RECIPE, REPOSITORY, checkpoint, fit, fit_apart, rows

SHORT = "--all_stages.trainer.max_steps=2"


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    for name in ("TOY_TRAP", "VGEN_PLAN", "LOCAL_RANK", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def edited(tmp_path, **trainer):
    """The first stage of the recipe alone, with other trainer settings."""
    content = yaml.safe_load(RECIPE.read_text())
    del content["stages"]["diffusion"]
    content["stages"]["autoencoder"]["trainer"] = trainer
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_process_of_its_own(tmp_path):
    done = fit_apart(tmp_path / "toy", SHORT)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "done" in line]
    assert said == [f"[{s}] done: step 2 after 0 s" for s in ("autoencoder", "diffusion")]
    noise = [
        line for line in done.stderr.splitlines() if "Seed set" not in line and "`Trainer.fit` stopped" not in line
    ]
    assert not noise, "a clean run warns of nothing"


def test_a_mistake_ends_with_code_2(tmp_path):
    done = fit_apart(tmp_path / "toy", "--only", "nothing")
    assert done.returncode == 2 and done.stdout == ""
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()][:2] == ["error", "where"]


def test_a_failure_ends_with_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOY_TRAP", "autoencoder:1:raise")
    fit(tmp_path / "toy", code=1)
    assert "RuntimeError: the trap" in capsys.readouterr().err


def test_every_run_has_its_numbers_seeds_and_checkpoints(tmp_path):
    """A recipe that names no callback has what a run needs all the same."""
    run = fit(tmp_path / "toy", "--all_stages.trainer.max_steps=6", recipe=edited(tmp_path))
    stage = run / "autoencoder"
    assert {p.name for p in stage.iterdir()} >= {"metrics.csv", "environment.json", "config.yaml", "done.json"}
    assert checkpoint(run, "autoencoder")["global_step"] == 6
    assert set(checkpoint(run, "autoencoder")["callbacks"]) == {"Checkpoint"}
    same = fit(tmp_path / "same", "--all_stages.trainer.max_steps=6", recipe=edited(tmp_path))
    assert rows(run, "autoencoder") == rows(same, "autoencoder")


def test_a_callback_of_the_recipe_is_not_doubled(tmp_path):
    seed = {"class_path": "vgen.callbacks.StepSeed", "init_args": {"seed": 77}}
    run = fit(tmp_path / "toy", SHORT, recipe=edited(tmp_path, callbacks=[seed]))
    other = fit(tmp_path / "other", SHORT, recipe=edited(tmp_path))
    assert rows(run, "autoencoder") != rows(other, "autoencoder")


def test_loggers_of_the_recipe_stand_beside_the_numbers(tmp_path):
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "own")}}
    run = fit(tmp_path / "toy", SHORT, recipe=edited(tmp_path, logger=logger))
    assert list((tmp_path / "own").rglob("metrics.csv")) and (run / "autoencoder" / "metrics.csv").is_file()


def test_no_logger_at_all(tmp_path):
    run = fit(tmp_path / "toy", SHORT, recipe=edited(tmp_path, logger=False))
    assert not (run / "autoencoder" / "metrics.csv").exists() and (run / "autoencoder" / "done.json").is_file()


def test_a_stage_without_checkpoints_says_so(tmp_path, capsys):
    fit(tmp_path / "toy", SHORT, recipe=edited(tmp_path, enable_checkpointing=False), code=2)
    assert "ended without a checkpoint" in capsys.readouterr().err


def test_a_trial_run_leaves_no_result(tmp_path):
    run = fit(tmp_path / "toy", recipe=edited(tmp_path, fast_dev_run=True))
    assert not list(run.rglob("*.ckpt")) and not list(run.rglob("done.json"))


def test_time_limited_training(tmp_path):
    limit = {"max_time": "00:00:00:01", "max_steps": -1, "max_epochs": -1}
    run = fit(tmp_path / "toy", recipe=edited(tmp_path, **limit))
    content = checkpoint(run, "autoencoder")
    assert content["global_step"] > 5
    assert int(rows(run, "autoencoder")[-1]["step"]) >= content["global_step"] - 1


def test_the_module_and_the_script_are_the_same_command():
    code = "from vgen.cli.main import console; console()"
    for start in (["-m", "vgen"], ["-c", code]):
        done = subprocess.run(
            [sys.executable, *start, "--version"], capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}
        )
        assert done.returncode == 0 and done.stdout.strip()
