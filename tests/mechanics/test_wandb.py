"""Weights & Biases without an account: one offline run per stage, grouped, found again after a resume."""

import builtins
import json

import pytest

from tests.mechanics.runs import RECIPE, fit
from vgen.cli.tracking import key_source
from vgen.video.io import probe

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
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setattr(builtins, "input", lambda *a: pytest.fail("asked a question"))
    wandb.teardown()  # the settings of the test before
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


def records(folder):
    """What an offline run holds: the file is LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = next(folder.glob("*.wandb")).read_bytes(), 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:  # the rest of a block is padding
            position += room
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_what_an_offline_run_holds(recipe, tmp_path, made, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    text = recipe.read_text().replace("every_n_steps: 4, num_samples: 2", "every_n_steps: 2, num_samples: 2")
    recipe.write_text(text)
    stage = fit(tmp_path / "toy", recipe=recipe) / "diffusion"
    folder = next((stage / "wandb").glob("offline-run-*"))
    config, history, files = {}, [], []
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            assert (record.run.project, record.run.run_group) == ("toys", "toy")
            assert (record.run.display_name, record.run.run_id) == ("toy/diffusion", made[1]["id"])
        if kind in ("run", "config"):
            update = record.run.config if kind == "run" else record.config
            config |= {item.key: json.loads(item.value_json) for item in update.update}
        if kind == "history":
            keys = (item.key or "/".join(item.nested_key) for item in record.history.item)
            history.append(dict(zip(keys, (json.loads(i.value_json) for i in record.history.item), strict=True)))
        if kind == "files":
            files += [file.path for file in record.files.files]
    environment = json.loads((stage / "environment.json").read_text())
    assert config["recipe"]["trainer"]["max_steps"] == 3
    assert config["recipe"]["model"]["class_path"] == "tests.mechanics.toy.ToyDiffusion"
    for key in ("git", "versions", "hardware", "parameters", "batch", "data"):
        assert config[key] == environment[key]
    losses = {row["trainer/global_step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert sorted(losses) == [0, 1, 2]
    assert any("perf/clips_per_s" in row and "lr" in row and "grad_norm/denoiser" in row for row in history)
    shown = [row for row in history if "samples/samples/videos" in row]
    assert [row["trainer/global_step"] for row in shown] == [2, 3]
    for row, step in zip(shown, (2, 3), strict=True):
        (video,) = row["samples/samples/videos"]
        name = video["path"]
        logged, written = folder / "files" / name, stage / "samples" / f"step_{step:08d}_samples.mp4"
        assert name.endswith(".mp4") and logged.read_bytes() == written.read_bytes()
        assert name in files and probe(logged).frames == 2
    assert wandb.run is None


def test_without_a_network_it_goes_on_offline(recipe, tmp_path, made, monkeypatch, capsys):
    """A key, and nothing that answers."""
    monkeypatch.delenv("WANDB_MODE")
    for name, value in (("API_KEY", "0" * 40), ("BASE_URL", "http://127.0.0.1:9"), ("INIT_TIMEOUT", "5")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    run = fit(tmp_path / "toy", "--only", "autoencoder", recipe=recipe)
    assert "W&B does not answer" in capsys.readouterr().out
    assert len(made) == 2 and made[0]["id"] == made[1]["id"]
    assert len(list((run / "autoencoder" / "wandb").glob("offline-run-*"))) == 1
    assert (run / "autoencoder" / "done.json").is_file()


def test_where_a_key_is(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    assert key_source() is None
    netrc.write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert key_source() == str(netrc)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert key_source() is None
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert key_source() == "WANDB_API_KEY"
    monkeypatch.delenv("WANDB_API_KEY")
    netrc.write_text("machine\x00")
    assert key_source() is None
