"""Speed, progress, gradient norms and provenance: that they say the right things, and cost nothing."""

import json
import math
import re
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import Logger

from tests.mechanics.toy import ToyAutoencoder, ToyNetwork
from vgen.callbacks import LineProgress, OptimizerStats, Provenance, StepSeed, TerminalProgress, Throughput
from vgen.callbacks.flops import peak_flops, step_flops
from vgen.callbacks.provenance import in_brief, parameter_table, published_counts


class Memory(Logger):
    """Keeps the rows."""

    name, version = "memory", ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyperparameters = params


def test_throughput(trainer, model, data):
    memory = Memory()
    trainer(Throughput(), logger=memory, max_steps=6, limit_val_batches=0).fit(model, datamodule=data)
    assert [row["clips"] for row in memory.rows] == [2, 4, 6, 8, 10, 12]
    for row in memory.rows:
        assert 0 < row["perf/clips_per_s"] < 1e6 and 0 <= row["perf/data_fraction"] <= 1
        assert row["perf/clips_per_s"] == pytest.approx(2 / row["perf/step_ms"] * 1000, rel=1e-4)
        assert row["perf/memory_gb"] > 0.01 and row["perf/gflops_per_s"] > 0
        assert "perf/flop_utilisation" not in row, "nobody knows the peak of a CPU"


def test_throughput_once_per_row_of_the_log(trainer, model, data):
    memory = Memory()
    options = {"logger": memory, "max_steps": 6, "limit_val_batches": 0, "log_every_n_steps": 3}
    trainer(Throughput(), **options).fit(model, datamodule=data)
    assert [row["clips"] for row in memory.rows] == [6, 12]
    assert all("perf/clips_per_s" in row for row in memory.rows)


def test_only_waiting_and_computing_count(trainer, model, data, monkeypatch):
    """A validation of .2 s between two steps is no part of the speed; a batch that takes .1 s to read is."""
    memory, load = Memory(), type(data.dataset("train")).__getitem__

    def slow(self, request):
        time.sleep(0.05 if self.training else 0)
        return load(self, request)

    monkeypatch.setattr(type(data.dataset("train")), "__getitem__", slow)
    monkeypatch.setattr(model, "validation_step", lambda *a: time.sleep(0.2))
    trainer(Throughput(), logger=memory, val_check_interval=1).fit(model, datamodule=data)
    rows = [row for row in memory.rows if "perf/step_ms" in row][1:]
    for row in rows:
        assert row["perf/data_fraction"] * row["perf/step_ms"] >= 95 and row["perf/data_fraction"] > 0.3
    assert min(row["perf/step_ms"] for row in rows) < 280


def test_operations_of_a_step(model, data):
    batch = model.on_after_batch_transfer(data.first_clips("train", 2), 0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    pixels = 2 * 2 * 8 * 8
    products = pixels * 3 * 4  # one 1 x 1 convolution from 3 to 4 channels, or back
    # Forward twice; backward twice for the second one, once for the first (its input is data); 2 operations each.
    assert step_flops(model, batch) == 2 * products * (2 + 2 + 1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_operations_of_a_module_without_a_loss():
    assert step_flops(torch.nn.Linear(2, 2), {}) is None


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16-mixed", 989.4),
        ("NVIDIA H100 PCIe", "bf16-mixed", 756),
        ("NVIDIA A100-SXM4-80GB", "32-true", 156),
        ("NVIDIA L40S", "16-mixed", 362),
        ("Some other card", "bf16-mixed", None),
    ],
)
def test_peaks(monkeypatch, name, precision, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    found = peak_flops(torch.device("cuda"), precision)
    assert found == (peak and pytest.approx(peak * 1e12))
    assert peak_flops(torch.device("cpu"), precision) is None


def test_gradient_norms_before_clipping(trainer, two_stage, data):
    memory, seen = Memory(), []

    class Reference(OptimizerStats):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            gradients = [p.grad.flatten() for p in pl_module.denoiser.parameters()]
            seen.append(float(torch.cat(gradients).norm()))

    options = {"logger": memory, "max_steps": 4, "limit_val_batches": 0, "log_every_n_steps": 2}
    trainer(Reference(), gradient_clip_val=1e-3, **options).fit(two_stage, datamodule=data)
    rows = [row for row in memory.rows if "lr" in row]
    assert [row["grad_norm/denoiser"] for row in rows] == pytest.approx([seen[1], seen[3]], rel=1e-5)
    assert min(seen) > 1e-2 and all(row["lr"] == pytest.approx(1e-3) for row in rows)
    assert not any("grad_norm/codec" in row or "grad_norm/all" in row for row in memory.rows)


def test_the_rate_of_the_step_that_was_taken(trainer, data):
    from functools import partial

    memory = Memory()
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    model = ToyAutoencoder(
        data.clip_spec,
        ToyNetwork(),
        optimizer=partial(torch.optim.SGD, lr=0.8),
        lr_scheduler=schedule,
        lr_interval="step",
    )
    trainer(OptimizerStats(), logger=memory, max_steps=3, limit_val_batches=0).fit(model, datamodule=data)
    assert [row["lr"] for row in memory.rows] == pytest.approx([0.8, 0.4, 0.2])


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


def test_the_bar_of_a_terminal(trainer, model, data, capsys):
    bar = TerminalProgress(every_n_seconds=0)
    trainer(bar, enable_progress_bar=True, max_steps=5, limit_val_batches=0).fit(model, datamodule=data)
    last = capsys.readouterr().out.replace("\r", "\n").rstrip().splitlines()[-1]
    assert re.search(r"Epoch 0: +100%.* 5/5 .*train/loss=[\d.]+, clips/s=[\d.]+, left=\d+ s", last), last


def test_time_left():
    model, bar = SimpleNamespace(clips_seen=0), LineProgress()
    at = SimpleNamespace(global_step=10, estimated_stepping_batches=40)
    bar._pace.begin(at, model)
    bar._pace._start -= 20
    at.global_step, model.clips_seen = 20, 160
    assert bar._pace.facts(at, model) == {"clips/s": "8.0", "left": "40 s"}
    bar._pace._start -= 9980
    assert bar._pace.facts(at, model)["left"] == "5 h 33 min"
    at.estimated_stepping_batches = math.inf
    assert set(bar._pace.facts(at, model)) == {"clips/s"}


def test_provenance(trainer, two_stage, data, tmp_path):
    trainer(Provenance()).fit(two_stage, datamodule=data)
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert {"git", "versions", "hardware", "parameters", "command", "precision"} <= facts.keys()
    assert facts["parameters"] == parameter_table(two_stage)
    assert {"torch", "lightning", "python"} <= facts["versions"].keys()
    assert facts["data"] == {"class": "ToyClips", "fingerprint": "toy", "train_clips": 10, "val_clips": 4}
    assert facts["world_size"] == 1 and facts["planned_steps"] == 4
    assert facts["batch"] == {"per_device": 2, "devices": 1, "accumulation": 1, "global": 2}
    assert [start["step"] for start in facts["starts"]] == [0]


def test_provenance_is_printed_and_logged(trainer, model, data, tmp_path, capsys):
    memory, count = Memory(), parameter_table(model)[0][1]
    given = Provenance({"trainer": {"max_steps": 2}}, {"ToyNetwork (small)": count, "ToyNetwork (large)": 5})
    trainer(given, max_steps=2, logger=memory, accumulate_grad_batches=2).fit(model, datamodule=data)
    lines = capsys.readouterr().out.splitlines()
    assert f"[fit] ToyNetwork {count} parameters = published (small)" in lines
    assert "[fit] data ToyClips: 10 train, 4 val clips, fingerprint toy" in lines
    assert "[fit] batch 4 clips (1 device x 2 x 2 accumulated), 32-true, 2 steps" in lines
    assert memory.hyperparameters["recipe"] == {"trainer": {"max_steps": 2}}
    assert memory.hyperparameters["batch"]["global"] == 4 and "versions" in memory.hyperparameters


def test_networks_of_another_size_are_named():
    row = published_counts(torch.nn.Sequential(ToyNetwork()), {"ToyNetwork": 66_004_557})[0]
    assert row["text"] == f"ToyNetwork {row['count']} parameters, differs from the published 66,004,557"
    assert not row["equal"] and row["network"] == "0"
    assert published_counts(ToyNetwork(), {"LFAE": 1}) == []


def test_a_resumed_run_adds_its_start(trainer, data, tmp_path):
    for steps, path in ((2, None), (4, tmp_path / "two.ckpt")):
        maker = trainer(Provenance(), max_steps=steps)
        maker.fit(ToyAutoencoder(data.clip_spec, ToyNetwork()), datamodule=data, ckpt_path=path)
        maker.save_checkpoint(tmp_path / "two.ckpt")
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert [start["step"] for start in facts["starts"]] == [0, 2]
    assert "goes on from step 2" in in_brief(facts)


def test_a_commit_with_changes(trainer, model, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for line in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *line], check=True)
    (tmp_path / "changed.py").touch()
    trainer(Provenance(), max_steps=1).fit(model, datamodule=data)
    commit = json.loads((tmp_path / "environment.json").read_text())["git"]
    assert re.fullmatch(r"[0-9a-f]{40}-dirty", commit)


def test_provenance_without_git(trainer, model, data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    trainer(Provenance()).fit(model, datamodule=data)
    assert json.loads((tmp_path / "environment.json").read_text())["git"] is None


@pytest.mark.parametrize("callback", [Throughput(), LineProgress(0), OptimizerStats(), Provenance()])
def test_nothing_changes_the_training(trainer, data, callback):
    ends = []
    for callbacks in ([], [callback]):
        torch.manual_seed(0)
        model = ToyAutoencoder(data.clip_spec, ToyNetwork())
        trainer(StepSeed(0), *callbacks).fit(model, datamodule=data)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
