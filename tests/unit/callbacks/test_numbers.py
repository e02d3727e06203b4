"""Speed, progress lines and provenance: that they say the right things, and cost nothing."""

import json
import re

import pytest
from lightning.pytorch.loggers import Logger

from vgen.callbacks import LineProgress, Provenance, Throughput
from vgen.callbacks.provenance import parameter_table


class Memory(Logger):
    """Keeps the rows."""

    name, version = "memory", ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def test_throughput(trainer, model, data):
    memory = Memory()
    trainer(Throughput(), logger=memory, max_steps=6, limit_val_batches=0).fit(model, datamodule=data)
    assert [row["clips"] for row in memory.rows] == [2, 4, 6, 8, 10, 12]
    rates = [row["perf/clips_per_s"] for row in memory.rows if "perf/clips_per_s" in row]
    assert len(rates) >= 5 and all(0 < rate < 1e6 for rate in rates)
    assert all(0 <= row.get("perf/data_fraction", 0) <= 1 for row in memory.rows)
    assert all(row.get("perf/memory_gb", 1) > 0.01 for row in memory.rows)


def test_throughput_once_per_row_of_the_log(trainer, model, data):
    memory = Memory()
    options = {"logger": memory, "max_steps": 6, "limit_val_batches": 0, "log_every_n_steps": 3}
    trainer(Throughput(), **options).fit(model, datamodule=data)
    assert [row["clips"] for row in memory.rows] == [6, 12]
    assert all("perf/clips_per_s" in row for row in memory.rows)


def test_lines(trainer, model, data, capsys):
    model.stage_name = "autoencoder"
    trainer(LineProgress(every_n_seconds=0), max_steps=3, limit_val_batches=0).fit(model, datamodule=data)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("[autoencoder] ") for line in lines)
    pattern = r"\[autoencoder\] step 2/3  (train/loss \S+  )?[\d.]+ clips/s  \d+ s left"
    assert re.fullmatch(pattern, lines[1]), lines[1]
    assert re.fullmatch(r"\[autoencoder\] done: step 3 after \d+ s", lines[-1])


def test_one_line_per_interval(trainer, model, data, capsys):
    trainer(LineProgress(every_n_seconds=1000), max_steps=3, limit_val_batches=0).fit(model, datamodule=data)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_provenance(trainer, two_stage, data, tmp_path):
    trainer(Provenance()).fit(two_stage, datamodule=data)
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert {"git", "versions", "hardware", "parameters", "command", "precision"} <= facts.keys()
    assert facts["parameters"] == parameter_table(two_stage)
    assert {"torch", "lightning", "python"} <= facts["versions"].keys()
    assert facts["data"] == {"class": "ToyClips", "fingerprint": "toy"} and facts["world_size"] == 1


def test_provenance_without_git(trainer, model, data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    trainer(Provenance()).fit(model, datamodule=data)
    assert json.loads((tmp_path / "environment.json").read_text())["git"] is None


@pytest.mark.parametrize("callback", [Throughput(), LineProgress(0)])
def test_nothing_changes_the_training(trainer, data, callback):
    import torch

    from tests.mechanics.toy import ToyAutoencoder, ToyNetwork
    from vgen.callbacks import StepSeed

    ends = []
    for callbacks in ([], [callback]):
        torch.manual_seed(0)
        model = ToyAutoencoder(data.clip_spec, ToyNetwork())
        trainer(StepSeed(0), *callbacks).fit(model, datamodule=data)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
