"""Two CPU processes by Lightning's own launcher, over both stages of one command."""

import signal

import pytest
import torch

from tests.mechanics.processes import apart
from tests.mechanics.runs import assert_same, checkpoint, fit, fit_apart, leaves, rows, with_callbacks

TWO = ("--all_stages.trainer.devices=2", "--all_stages.trainer.strategy=ddp")


def together(run_dir, *arguments, **options):
    return fit_apart(run_dir, *TWO, *arguments, **options)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The toy recipe with a callback that writes down what each rank holds."""
    return with_callbacks(tmp_path_factory.mktemp("recipe") / "ranks.yaml", "toy.RankRecorder")


@pytest.fixture(scope="module")
def pair(recipe, tmp_path_factory):
    """An uninterrupted run of two ranks."""
    run = tmp_path_factory.mktemp("pair") / "toy"
    done = together(run, recipe=recipe)
    assert done.returncode == 0, done.stderr
    return run, done


def test_both_ranks_train_both_stages(pair):
    run, _ = pair
    for stage in ("autoencoder", "diffusion"):
        ranks = [torch.load(run / stage / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
        assert [r["rank"] for r in ranks] == [0, 1] and {r["world_size"] for r in ranks} == {2}
        assert ranks[0]["pid"] != ranks[1]["pid"]
        for key, value in ranks[0]["weights"].items():
            # BatchNorm statistics of the last batch are each rank's own; DDP copies the first rank's before a step.
            if "running" not in key:
                assert torch.equal(value, ranks[1]["weights"][key]), key
        for key, value in ranks[0]["average"].items():
            assert torch.equal(value, ranks[1]["average"][key]), key
        assert not set(ranks[0]["clips"]) & set(ranks[1]["clips"])
        assert leaves(checkpoint(run, stage)["state_dict"]).keys() == leaves(ranks[0]["weights"]).keys()


def test_ranks_draw_different_noise(pair):
    ranks = [torch.load(pair[0] / "autoencoder" / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert ranks[0]["draw"] != ranks[1]["draw"]


def test_everything_is_written_once(pair):
    run, done = pair
    for stage in ("autoencoder", "diffusion"):
        assert [row["step"] for row in rows(run, stage) if row["train/loss"]] == [str(step) for step in range(1, 8)]
        assert checkpoint(run, stage)["vgen"]["clips"] == 7 * 2 * 2
        assert done.stdout.count(f"[{stage}] done") == 1
    assert not list(run.rglob("*-v1*")) and not list(run.rglob("*.tmp*"))


def test_the_processes_are_the_same_in_both_stages(pair):
    pids = [
        [torch.load(pair[0] / stage / f"rank{rank}.pt", weights_only=True)["pid"] for rank in range(2)]
        for stage in ("autoencoder", "diffusion")
    ]
    assert pids[0] == pids[1]


def test_a_crash_of_one_rank_in_the_second_stage(pair, recipe, tmp_path):
    run = tmp_path / "toy"
    done = together(run, trap="diffusion:5:raise:1", recipe=recipe)
    assert done.returncode != 0
    assert (run / "autoencoder" / "done.json").is_file() and not (run / "diffusion" / "done.json").exists()
    assert checkpoint(run)["global_step"] == 4
    codes, output = apart(run, "--resume", recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    assert "[autoencoder] already trained" in output and "[autoencoder] done" not in output
    assert_same(pair[0], run)


@pytest.mark.slow
def test_a_kill_of_the_first_rank_ends_the_other(pair, recipe, tmp_path):
    run = tmp_path / "toy"
    done = together(run, trap="autoencoder:5:kill:0", recipe=recipe)  # returns when both have let go of the output
    assert done.returncode == -signal.SIGKILL
    again = together(run, "--resume", recipe=recipe)
    assert again.returncode == 0, again.stderr
    assert_same(pair[0], run)


@pytest.mark.slow
def test_stages_by_separate_commands(pair, recipe, tmp_path):
    run = tmp_path / "toy"
    for stage in ("autoencoder", "diffusion"):
        done = together(run, "--only", stage, recipe=recipe)
        assert done.returncode == 0, done.stderr
    assert_same(pair[0], run)


@pytest.mark.parametrize(
    "setting", ["trainer.devices=2", "trainer.num_nodes=2", "trainer.accelerator=auto"], ids=lambda s: s.split(".")[1]
)
def test_stages_on_different_devices_are_refused(tmp_path, capsys, setting):
    fit(tmp_path / "toy", f"--stages.diffusion.{setting}", code=2)
    message = capsys.readouterr().err
    assert "differ in their processes" in message and "--only autoencoder, then --only diffusion" in message
    assert not (tmp_path / "toy").exists()


def test_a_stage_alone_may_have_its_own_devices(tmp_path, capsys):
    run = fit(tmp_path / "toy", "--stages.diffusion.trainer.devices=2", "--only", "autoencoder")
    assert (run / "autoencoder" / "done.json").is_file()
