"""`vgen benchmark` from its first row to its last: killed, resumed, with recipes that fail."""

import csv
import json
import shutil

import pytest
import yaml

from tests.mechanics.runs import RECIPE as TOY
from tests.mechanics.runs import assert_same
from tests.tiny_lfdm import recipe as lfdm_recipe
from vgen.cli.benchmark.recipes import find_recipe, read_recipe
from vgen.cli.benchmark.work import pace
from vgen.cli.main import main
from vgen.cli.run import dump
from vgen.report.read import read_run

COST = {"steps", "clips_seen", "train_seconds", "train_clips_per_s", "peak_memory_gb", "parameters", "hardware"}


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A folder with the toy, LFDM, and a recipe that reads more frames than the clips have."""
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copy(TOY, folder / "toy.yaml")
    tiny = lfdm_recipe("nowhere")
    diffusion = tiny["stages"]["diffusion"]["model"]["init_args"]
    diffusion["conditioner"]["init_args"]["dim"] = diffusion["denoiser"]["init_args"]["cond_dim"] = 9
    (folder / "lfdm.yaml").write_text(yaml.safe_dump(tiny))
    long = yaml.safe_load(TOY.read_text())
    long["stages"]["autoencoder"]["data"]["init_args"] = {"frames": 9}
    (folder / "long.yaml").write_text(yaml.safe_dump(long))
    return folder


def benchmark(folder, out, *names, more=()):
    words = ["benchmark", "--data", "moving_digits", "--size", "16", "--frames", "4", "--out", str(out)]
    words += ["--data-option", "train_clips=24", "--data-option", "test_clips=20", "--steps", "12", "--clips", "8"]
    words += ["--judge-clips", "24", "--judge-steps", "3", "--batch", "3", "--device", "cpu"]
    return main([*words, "--recipes", *(str(folder / f"{name}.yaml") for name in names), *more])


def table(out):
    with open(out / "benchmark.csv", newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def first(recipes, tmp_path_factory):
    """A benchmark in which the toy was killed in the middle of its second stage; its folder and exit code."""
    out = tmp_path_factory.mktemp("first") / "bench"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOY_TRAP", "diffusion:3:kill")
        code = benchmark(recipes, out, "toy", "long", "lfdm")
    return out, code, table(out)


def test_a_recipe_that_fails_is_a_row_and_the_others_go_on(first):
    out, code, rows = first
    assert code == 1
    assert list(rows) == [
        "real clips (floor)",
        "real, frames shuffled",
        "real, first frame frozen",
        "real, mean frame",
        "toy",
        "long",
        "lfdm",
    ]
    assert rows["toy"]["error"] == "killed by SIGKILL; the same command goes on" and not rows["toy"]["frechet_small"]
    assert "reads 9 frames, and the benchmark's clips have 4 (stages.autoencoder.data)" in rows["long"]["error"]
    assert rows["lfdm"]["error"] == "" and not (out / "long").exists()


def test_a_row_says_everything(first):
    out, _, rows = first
    record = json.loads((out / "lfdm" / "evaluation" / "benchmark.json").read_text())
    assert set(record["metrics"]) >= {"frechet_small", "diversity", "psnr/set"}
    entry, settings = record["metrics"]["frechet_small"], record["settings"]
    assert entry["n"] == entry["n_real"] == 8 and entry["floor"]["value"] == float(
        rows["real clips (floor)"]["frechet_small"]
    )
    assert entry["detector"]["settings"]["held_out_accuracy"]["n"] == 20
    assert set(settings["cost"]) == COST | {"sample_clips_per_s"} and settings["weights"] == "ema"
    assert (
        settings["cost"]["clips_seen"] == {"autoencoder": 12, "diffusion": 12} and settings["cost"]["parameters"] > 1000
    )
    assert {"image", "label"} <= set(settings["inputs"])
    # It takes the class in, whatever it makes of it: that figure is there.
    assert settings["reads_class"] and 0 <= record["metrics"]["class_accuracy"]["value"] <= 1
    (evaluation,) = read_run(out / "lfdm").evaluations
    assert evaluation.protocol == "benchmark/moving_digits" and (out / "lfdm" / "generated" / "grid.mp4").is_file()
    times = pace(out / "lfdm", ["autoencoder", "diffusion"])
    assert min(times.values()) > 0
    adapted = yaml.safe_load((out / "recipes" / "lfdm.yaml").read_text())["stages"]["diffusion"]
    assert adapted["data"]["class_path"].endswith("MovingDigits") and adapted["trainer"]["max_steps"] == 6


def test_the_same_command_goes_on_exactly(first, recipes, tmp_path, monkeypatch, capsys):
    out, _, before = first
    kept = (out / "lfdm" / "evaluation" / "benchmark.json").stat().st_mtime_ns
    detector = next((out / "judge").glob("frechet_small_*.safetensors"))
    trained = detector.stat().st_mtime_ns
    assert benchmark(recipes, out, "toy", "lfdm") == 0
    printed = capsys.readouterr().out
    assert "lfdm: was finished before" in printed and "frechet_small" in printed and "no FVD" in printed
    assert "warning: the classifier reads little" in printed  # three steps teach it nothing
    rows = table(out)
    assert rows["lfdm"] == before["lfdm"] and detector.stat().st_mtime_ns == trained
    assert (out / "lfdm" / "evaluation" / "benchmark.json").stat().st_mtime_ns == kept
    # Killed and resumed, or in one piece: the same weights, clips and numbers.
    assert benchmark(recipes, tmp_path / "whole", "toy") == 0
    assert_same(tmp_path / "whole" / "toy", out / "toy")
    whole = table(tmp_path / "whole")
    for column in ("frechet_small", "diversity", "psnr/set"):
        assert rows["toy"][column] == whole["toy"][column] != ""
    assert rows["toy"]["class_accuracy"] == ""  # its clips do not depend on the class
    assert rows["real clips (floor)"] == whole["real clips (floor)"]

    # Finished, nothing is made or judged again.
    monkeypatch.setattr("vgen.cli.benchmark.judging.small_detector", lambda *_: pytest.fail("judged again"))
    monkeypatch.setattr("vgen.cli.benchmark.benchmark.apart", lambda *_: pytest.fail("trained again"))
    assert benchmark(recipes, out, "toy", "lfdm") == 0 and table(out) == rows

    # Another recipe under the same name is no part of it.
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "toy.yaml").write_text(TOY.read_text().replace("dim: 6", "dim: 7"))
    assert benchmark(changed, out, "toy") == 1
    assert "the recipe has changed" in table(out)["toy"]["error"]


@pytest.fixture(scope="module")
def small_vdm(tmp_path_factory):
    """A folder with the tiny recipe of latent video diffusion, made smaller: two stages, and videos of any length."""
    folder = tmp_path_factory.mktemp("vdm")
    stages, _ = read_recipe(find_recipe("ldm_mug"))
    autoencoder, diffusion = (stages[name]["model"]["init_args"] for name in ("autoencoder", "diffusion"))
    autoencoder["network"]["init_args"] |= {"block_out_channels": [8, 8], "norm_num_groups": 4}
    diffusion["denoiser"]["init_args"] |= {"dim": 8, "cond_dim": 9, "attn_dim_head": 8}
    diffusion["conditioner"]["init_args"]["dim"] = 9
    diffusion["sampler"]["init_args"]["steps"] = 2
    for stage in stages.values():
        stage["data"]["init_args"]["batch_size"] = 2
    (folder / "ldm.yaml").write_text(dump({"stages": stages}))
    return folder


def test_the_untrained_model_and_clips_of_long_videos(small_vdm, tmp_path, capsys):
    out = tmp_path / "bench"
    assert benchmark(small_vdm, out, "ldm", more=["--untrained", "--chain", "2"]) == 0
    rows = table(out)
    assert list(rows)[4:] == [
        "real clips, clip 1 of 2",
        "real clips, clip 2 of 2",
        "ldm",
        "ldm, untrained",
        "ldm, clip 1 of 2",
        "ldm, clip 2 of 2",
    ]
    for row in rows.values():
        low, value, high = (float(row[f"frechet_small{of}"]) for of in ("/low", "", "/high"))
        assert low <= value <= high
    assert rows["real clips, clip 1 of 2"]["frechet_small"] == rows["real clips (floor)"]["frechet_small"]
    assert rows["ldm, untrained"]["frechet_small"] != rows["ldm"]["frechet_small"]
    assert rows["ldm, clip 1 of 2"]["frechet_small"] != rows["ldm, clip 2 of 2"]["frechet_small"]
    frozen, mean, ours = (
        rows[f"{name}"]["psnr/set"] for name in ("real, first frame frozen", "real, mean frame", "ldm")
    )
    assert float(mean) > float(frozen) > 0 and float(ours) > 0 and rows["ldm, untrained"]["psnr/set"] == ""
    # What is asked for later is added to what is there.
    assert benchmark(small_vdm, out, "ldm") == 0 and list(table(out))[4:] == ["ldm"]
    assert benchmark(small_vdm, out, "ldm", more=["--untrained"]) == 0
    assert (
        "ldm: was finished before" in capsys.readouterr().out and table(out)["ldm, untrained"] == rows["ldm, untrained"]
    )


def test_mistakes(first, recipes, tmp_path, capsys):
    def error(*arguments, **options):
        assert benchmark(*arguments, **options) == 2
        return capsys.readouterr().err

    assert "another benchmark lies there: seed differ" in error(recipes, first[0], "toy", more=["--seed", "1"])
    assert "must be more than 0" in error(recipes, tmp_path, "toy", more=["--clips", "0"])
    assert "no such recipe" in error(recipes, tmp_path / "new", "none")
    assert "the same name" in error(recipes, tmp_path / "new", "toy", "toy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert "holds no benchmark" in error(recipes, tmp_path / "full", "toy")
    assert "no NAME=VALUE" in error(recipes, tmp_path / "new", "toy", more=["--data-option", "x"])
    assert main(["benchmark", "--data", "moving_digits", "--recipes", "x", "--steps", "1", "--budget", "1"]) == 2
    assert "not allowed with" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
