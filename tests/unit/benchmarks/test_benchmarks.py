"""The benchmarks measure what they say, and the GPU check's logic works without a GPU. No test compares times."""

import json

import pytest
import torch

from benchmarks import decoding, gpu_check, step_time
from benchmarks.cases import Variant, build
from benchmarks.environment import cpu_name, facts, slug
from benchmarks.rows import ROWS
from benchmarks.timing import ROOT, Subject, Timed, Worker, quartiles, ratio, take_turns


@pytest.mark.parametrize("name", ROWS)
def test_rows_have_the_stated_sizes(name):
    row = ROWS[name]
    small = name.endswith("-tiny") or name == "lfae-s"
    device = "cpu" if small else "meta"
    with torch.device(device):
        module = row.module(False)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == row.parameters
    if small:
        assert row.batch(1, "cpu")["video"].shape == (1, 3, row.frames, row.side, row.side)


TINY = [name for name, row in ROWS.items() if name.endswith("-tiny") and not row.samples]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("variant", [Variant(), Variant(precision="bf16"), Variant(checkpointing=True)], ids=str)
def test_a_step_trains(name, variant):
    if name == "vidm-tiny" and variant.checkpointing:
        with pytest.raises(ValueError, match="no gradient checkpointing"):
            build(name, variant)
        return
    step = build(name, variant)
    torch.manual_seed(0)
    first = step()
    assert first.isfinite() and first.dtype == torch.float32
    torch.manual_seed(0)
    assert step() != first  # the same noise, other weights


def test_a_step_of_a_clip_samples():
    step = build("vidm-clip-tiny", Variant())
    assert step() == step(), "the same seeds"


def test_variants_start_from_the_same_weights_and_batch():
    losses = []
    for checkpointing in (False, True):
        step = build("dm-tiny", Variant(checkpointing=checkpointing))
        torch.manual_seed(5)
        losses.append(step())
    assert torch.equal(*losses)


def test_quartiles_and_ratios():
    assert quartiles([3.0]) == (3, 3, 3)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2, 3, 4)
    ours = Timed(Subject("vgen"), wall=[1.0, 2.0, 1.0], cpu=[1.0, 1.0, 1.0])
    theirs = Timed(Subject("other"), wall=[2.0, 4.0, 3.0], cpu=[3.0, 3.0, 3.0])
    found = ratio(ours, theirs)
    assert (found["of"], found["to"]) == ("other", "vgen")
    assert found["wall"]["median"] == 2 and found["cpu"]["median"] == 3
    summary = Timed(Subject("x"), [2.0], [1.0], [0.5], 2**21).summary(clips=4)
    assert summary["clips_per_s"] == 2 and summary["peak_mb"] == 2


def test_it_runs_two_subjects_in_turn_and_writes_them_down(tmp_path, capsys):
    other = tmp_path / "hungry.py"
    other.write_text(
        "import torch\n"
        "from benchmarks.cases import Variant, build as ours\n"
        "def build(row, device):\n"
        "    step, held = ours(row, Variant(device)), []\n"
        "    def hungry():\n"
        "        held.append(torch.ones(16, 2**20))\n"  # 64 MB in each step
        "        return step()\n"
        "    return hungry\n"
    )
    out = tmp_path / "result.json"
    arguments = ["--rows", "dm-tiny", "--repeats", "2", "--against", str(other), "--out", str(out)]
    assert step_time.main(arguments) == 0
    content = json.loads(out.read_text())
    assert content["benchmark"] == "step_time" and content["threads"] == 1
    assert content["versions"]["torch"] == torch.__version__
    (row,) = content["rows"]
    ours, theirs = row["variants"]
    assert (ours["variant"], theirs["variant"]) == ("vgen", "hungry")
    for variant in row["variants"]:
        assert len(variant["wall_s"]["all"]) == 2 and min(variant["wall_s"]["all"]) > 0
        assert variant["wall_s"]["q1"] <= variant["wall_s"]["median"] <= variant["wall_s"]["q3"]
    assert ours["first_losses"] == theirs["first_losses"]  # the same weights, batch and noise
    assert theirs["peak_mb"] - ours["peak_mb"] > 3 * 64  # four steps, two of them to warm up
    assert "hungry / vgen" in capsys.readouterr().out
    assert str(tmp_path) not in out.read_text()


def test_another_checkout_is_measured_with_its_own_package(tmp_path):
    package = tmp_path / "checkout" / "vgen"
    package.parent.mkdir()
    package.symlink_to(ROOT / "vgen")
    worker = Worker("lfae-tiny", Subject("other", path=str(package.parent)), threads=1)
    try:
        assert worker.description == {"vgen": str(package)}
        assert worker.ask("step")["wall"] > 0
    finally:
        worker.close()


def test_a_process_that_dies_is_an_error(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def build(row, device):\n    raise RuntimeError('no')\n")
    with pytest.raises(RuntimeError, match="ended with code 1"):
        take_turns("dm-tiny", [Subject("broken", path=str(broken))], repeats=1, threads=1)


def test_environment():
    assert cpu_name() and slug("AMD EPYC 9B14 96-Core") == "amd_epyc_9b14_96_core"
    found = facts(threads=1)
    assert found["hardware"]["cores"] and len(found["load_average"]) == 3


def test_gpu_check_without_a_gpu_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and "CUDA" in captured.err


@pytest.mark.slow  # compiles whole models, and times every variant of two rows
def test_gpu_check_on_a_cpu_with_tiny_networks(tmp_path):
    out = tmp_path / "check.json"
    names = ["bf16_drift", "compiled_losses", "step_times"]
    assert gpu_check.main(["--device", "cpu", "--tiny", "--out", str(out), "--only", *names]) == 0
    checks = json.loads(out.read_text())["checks"]
    assert list(checks) == names and all(outcome["ok"] for outcome in checks.values())
    assert [row["row"] for row in checks["step_times"]["rows"]] == ["lfae-tiny", "dm-tiny"]
    variants = [variant["variant"] for variant in checks["step_times"]["rows"][0]["variants"]]
    assert variants == ["fp32", "bf16", "fp32 checkpointing"]


def test_gpu_check_compares_bf16(tmp_path):
    out = tmp_path / "check.json"
    assert gpu_check.main(["--device", "cpu", "--tiny", "--out", str(out), "--only", "bf16_drift"]) == 0
    assert json.loads(out.read_text())["checks"]["bf16_drift"]["ok"]


@pytest.mark.slow  # two runs of the command line
def test_gpu_check_trains(tmp_path):
    out = tmp_path / "check.json"
    assert gpu_check.main(["--device", "cpu", "--tiny", "--out", str(out), "--only", "short_training"]) == 0
    outcome = json.loads(out.read_text())["checks"]["short_training"]
    assert outcome["stages"].keys() == {"autoencoder", "diffusion"}
    assert all(stage["logged"] >= 3 for stage in outcome["stages"].values())


def test_a_check_that_fails_does_not_hide_the_others(tmp_path, monkeypatch):
    def drifts(device, tiny):
        raise gpu_check.Failed("too far")

    def breaks(device, tiny):
        raise ValueError("driver")

    monkeypatch.setattr(gpu_check, "CHECKS", {"a": drifts, "b": breaks, "c": lambda device, tiny: {"x": 1}})
    outcomes = gpu_check.run("cpu", True, ["a", "b", "c"])
    assert [outcome["ok"] for outcome in outcomes.values()] == [False, False, True]
    assert outcomes["a"]["error"] == "too far" and outcomes["b"]["error"] == "ValueError: driver"


def test_losses_are_read_from_the_log(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/loss\n1,0.5,\n2,,0.4\n3,0.25,\n")
    assert gpu_check._losses(path) == [0.5, 0.25]


def test_benchmarks_print_help():
    for module in (step_time, gpu_check):
        with pytest.raises(SystemExit) as stop:
            module.main(["--help"])
        assert stop.value.code == 0


def test_seconds_per_code(tmp_path, capsys):
    out = tmp_path / "decoding.json"
    small = ["--grid", "2", "4", "4", "--hidden", "12", "--layers", "1", "--heads", "2", "--last", "3"]
    assert decoding.main([*small, "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["codes"] == 32 and content["ratio"] == content["anew"]["median"] / content["kept"]["median"]
    assert "times as fast" in capsys.readouterr().out
