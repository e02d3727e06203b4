"""Recipes made equal, and the table."""

import csv
import io

import pytest

from vgen.cli.benchmark.clips import BenchmarkClips
from vgen.cli.benchmark.recipes import Budget, Length, adapt, check, find_recipe, own_lengths, read_recipe, share
from vgen.cli.benchmark.table import Row, as_csv, as_markdown, as_text
from vgen.errors import UserError


@pytest.fixture(scope="module")
def clips():
    return BenchmarkClips("moving_digits", ".", 64, 16, {"train_clips": 30, "test_clips": 9})


@pytest.fixture(scope="module")
def lfdm():
    stages, shrunk = read_recipe(find_recipe("lfdm_mug"))
    assert shrunk
    return stages


def data_of(stage):
    return stage["data"]["init_args"]


def test_a_recipe_is_found_by_name_and_by_file(tmp_path):
    assert find_recipe("lfdm_mug").name == "lfdm_mug.yaml"
    assert find_recipe(str(find_recipe("lfdm_mug"))) == find_recipe("lfdm_mug")
    with pytest.raises(UserError) as error:
        find_recipe("lfdm_mugs")
    assert "did you mean 'lfdm_mug'" in str(error.value.hint)
    with pytest.raises(UserError, match="no such recipe"):
        find_recipe(str(tmp_path / "none.yaml"))


def test_lengths_of_a_recipe(lfdm):
    assert own_lengths(lfdm, 30) == {"autoencoder": Length(1900, 8), "diffusion": Length(700, 4)}
    by_epochs = {
        "a": {"trainer": {"max_epochs": 3, "accumulate_grad_batches": 2}, "data": {"init_args": {"batch_size": 4}}}
    }
    assert own_lengths(by_epochs, 30) == {"a": Length(9, 8)}
    by_epochs["a"]["trainer"]["max_steps"] = 5
    assert own_lengths(by_epochs, 30)["a"].steps == 5
    by_epochs["a"]["trainer"] = {"max_epochs": -1, "max_steps": -1}
    with pytest.raises(UserError, match="no end"):
        own_lengths(by_epochs, 30)


@pytest.mark.parametrize(
    "budget, steps",
    [
        (Budget("clips", 1680), {"a": 85, "b": 40}),
        (Budget("steps", 125), {"a": 85, "b": 40}),
        (Budget("seconds", 41.25), {"a": 85, "b": 40}),
        (Budget("steps", 1), {"a": 1, "b": 1}),
    ],
)
def test_a_budget_is_shared_as_the_recipe_shares_its_own(budget, steps):
    lengths = {"a": Length(850, 16), "b": Length(400, 8)}
    assert share(lengths, budget, {"a": 0.25, "b": 0.5}) == steps


def test_a_recipe_on_the_clips_of_the_benchmark(lfdm, clips):
    adapted = adapt(lfdm, clips, {"autoencoder": 85, "diffusion": 20}, seed=7, accelerator="cpu")
    pairs, whole = data_of(adapted["autoencoder"]), data_of(adapted["diffusion"])
    for data in (pairs, whole):
        assert data["size"] == 64 and data["eval_frames"] == 16 and data["seed"] == 7 and data["labels"] == "motion"
        assert data["augmentation"] == "none" and data["train_clips"] == 30
    assert (pairs["frames"], pairs["sampling"], pairs["batch_size"]) == (2, "very_random", 8)
    assert (whole["frames"], whole["sampling"], whole["batch_size"]) == (16, "first", 4)
    trainer = adapted["autoencoder"]["trainer"]
    assert trainer["max_steps"] == 85 and trainer["limit_val_batches"] == 0 and 85 % trainer["log_every_n_steps"] == 0
    assert [c["class_path"].rpartition(".")[2] for c in trainer["callbacks"]] == ["Checkpoint"]
    assert [c["class_path"].rpartition(".")[2] for c in adapted["diffusion"]["trainer"]["callbacks"]] == [
        "Checkpoint", "EMA",
    ]  # fmt: skip
    schedule = adapted["autoencoder"]["model"]["init_args"]["lr_scheduler"]["init_args"]
    assert (schedule["total_steps"], schedule["warmup_steps"]) == (85, 2)
    # 80 clips are seen, more than the 30 that there are: encoding them once pays.
    assert adapted["diffusion"]["model"]["init_args"]["cache_latents"] is True
    little = adapt(lfdm, clips, {"autoencoder": 1, "diffusion": 1}, seed=0, accelerator="cpu")
    assert little["diffusion"]["model"]["init_args"]["cache_latents"] is False
    assert lfdm["autoencoder"]["trainer"]["max_steps"] == 1900  # the recipe itself stays


def test_what_does_not_fit_is_named(lfdm, clips):
    few = BenchmarkClips("moving_digits", ".", 64, 1, {"train_clips": 30, "test_clips": 9})
    with pytest.raises(UserError, match="reads 2 frames, and the benchmark's clips have 1"):
        adapt(lfdm, few, {"autoencoder": 1, "diffusion": 1}, 0, "cpu")
    odd = BenchmarkClips("moving_digits", ".", 40, 16, {"train_clips": 30, "test_clips": 9})
    with pytest.raises(UserError, match="a side of 10 pixels cannot be halved 4 times"):
        check(adapt(lfdm, odd, {"autoencoder": 1, "diffusion": 1}, 0, "cpu"))
    with pytest.raises(UserError, match="the data has none"):
        BenchmarkClips("moving_digits", ".", 64, 16, {"digits": 2})
    with pytest.raises(UserError, match="trian_clips"):
        BenchmarkClips("moving_digits", ".", 64, 16, {"trian_clips": 2})
    with pytest.raises(UserError, match="too few"):
        BenchmarkClips("moving_digits", ".", 64, 16, {"test_clips": 3}).halves(8)


def test_networks_that_state_size_or_number_of_frames_follow_the_data(clips):
    vidm, _ = read_recipe(find_recipe("vidm_ucf101"))
    adapted = adapt(vidm, clips, dict.fromkeys(vidm, 1), 0, "cpu")
    check(adapted)
    assert adapted["content"]["model"]["init_args"]["network"]["init_args"]["size"] == [64, 64]
    assert vidm["content"]["model"]["init_args"]["network"]["init_args"]["size"] == [32, 32]
    layouts = [s["motion"]["model"]["init_args"]["network"]["init_args"]["layout"] for s in (vidm, adapted)]
    assert [layout["video_timesteps"] for layout in layouts] == [8, 16]
    edm, _ = read_recipe(find_recipe("edm_sky"))
    check(adapt(edm, clips, dict.fromkeys(edm, 1), 0, "cpu"))


def test_halves_have_no_clip_in_common(clips):
    first, second = clips.halves(100)
    assert len(first) == len(second) == 4 and not set(first) & set(second) and max(first + second) < 9
    assert clips.halves(100) == (first, second) and len(clips.halves(3)[0]) == 3
    source = clips.source("test")
    assert len(source) == 9 and source.clip(2, range(3)).shape == (3, 3, 64, 64)
    assert source.labels == [record.label for record in clips.module.dataset("test").records]


def test_the_table():
    metrics = {"frechet_small": {"value": 1.25}, "psnr/set": {"value": 20.0}}
    cost = {"parameters": 1234, "clips_seen": {"a": 3, "b": 4}, "train_seconds": 9.6, "peak_memory_gb": None}
    rows = [Row("good", metrics, cost), Row("bad", error="one | thing")]
    head, good, bad = as_text(rows)
    assert head.split()[0] == "frechet_small" and len(good) == len(head)
    assert good.split() == ["good", "1.250", "-", "-", "-", "-", "20.00", "-", "-", "-", "1,234", "7", "10"]
    assert bad == "bad   failed: one | thing"
    lines = as_markdown(rows).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1 and "failed: one \\| thing" in lines[3]
    table = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert table[0]["train_seconds"] == "9.6" and table[0]["diversity"] == "" and table[1]["error"] == "one | thing"
