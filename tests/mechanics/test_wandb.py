"""Weights & Biases without an account: one offline run per stage, grouped, found again after a resume."""

import builtins

import pytest

from tests.mechanics.runs import RECIPE, fit

wandb = pytest.importorskip("wandb")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "wandb.yaml"
    logger = "logger: {class_path: WandbLogger, init_args: {project: toys}}"
    path.write_text(RECIPE.read_text().replace("max_steps: 7,", f"max_steps: 3, {logger},"))
    return path


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Arguments of every wandb run that a command opens; nothing may ask a question or look for a network."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(builtins, "input", lambda *a: pytest.fail("asked a question"))
    opened = []
    init = wandb.init

    def record(*args, **options):
        opened.append(options)
        return init(*args, **options)

    monkeypatch.setattr(wandb, "init", record)
    yield opened
    wandb.finish()


def test_one_offline_run_per_stage(recipe, tmp_path, made, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")  # no key: offline by itself
    run = fit(tmp_path / "toy", recipe=recipe)
    assert [(o["name"], o["group"], o["project"]) for o in made] == [
        ("toy/autoencoder", "toy", "toys"),
        ("toy/diffusion", "toy", "toys"),
    ]
    assert len({o["id"] for o in made}) == 2
    for stage, options in zip(("autoencoder", "diffusion"), made, strict=True):
        assert (run / stage / "wandb_id").read_text() == options["id"]
        folders = list((run / stage / "wandb").glob("offline-run-*"))
        assert len(folders) == 1 and folders[0].name.endswith(options["id"])
    assert wandb.run is None


def test_a_resumed_stage_is_the_same_run(recipe, tmp_path, made, monkeypatch):
    monkeypatch.setenv("TOY_TRAP", "autoencoder:2:raise")
    run = fit(tmp_path / "toy", "--only", "autoencoder", recipe=recipe, code=1)
    monkeypatch.delenv("TOY_TRAP")
    wandb.finish()
    fit(run, "--only", "autoencoder", "--resume", recipe=recipe)
    assert made[0]["id"] == made[1]["id"]
    fit(run, "--only", "autoencoder", "--overwrite", recipe=recipe)
    assert (run / "autoencoder" / "wandb_id").read_text() == made[2]["id"]


def test_without_a_key_nothing_is_logged_unasked(tmp_path, made):
    fit(tmp_path / "toy", "--only", "autoencoder", "--all_stages.trainer.max_steps=1")
    assert not made


def test_a_key_in_the_environment_switches_it_on(tmp_path, made, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    run = fit(tmp_path / "toy", "--only", "autoencoder", "--all_stages.trainer.max_steps=1")
    assert [(o["name"], o["group"], o["project"]) for o in made] == [("toy/autoencoder", "toy", "vgen")]
    assert (run / "autoencoder" / "metrics.csv").is_file()


def test_disabled_is_disabled(tmp_path, made, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(tmp_path / "toy", "--only", "autoencoder", "--all_stages.trainer.max_steps=1")
    assert not made
