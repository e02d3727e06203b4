"""Several batches to a step, and several ranks: what is counted, and which clips are seen."""

import pytest
import torch

from tests.mechanics.processes import apart
from tests.mechanics.runs import assert_same, checkpoint, fit, rows, with_callbacks

# Twice 16 clips: four steps of 8 with 4 batches to an epoch, or of 2 batches of 4, or of 2 x 2 of 2 ranks.
CLIPS = ("--all_stages.data.clips=16", "--all_stages.trainer.max_steps=4", "--only", "autoencoder")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return with_callbacks(tmp_path_factory.mktemp("recipe") / "toy.yaml", "toy.RankRecorder", "killer.Killer")


def arguments(batch, accumulate):
    accumulated = f"--all_stages.trainer.accumulate_grad_batches={accumulate}"
    return (*CLIPS, f"--all_stages.data.batch_size={batch}", accumulated)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """Eight clips in a batch, one batch to a step."""
    return fit(tmp_path_factory.mktemp("whole") / "toy", *arguments(8, 1), recipe=recipe)


def clips(run, rank=0):
    return torch.load(run / "autoencoder" / f"rank{rank}.pt", weights_only=True)["clips"]


def counts(run):
    return [(row["step"], row["clips"]) for row in rows(run, "autoencoder") if row["train/loss"]]


def test_accumulation_sees_the_same_clips(whole, recipe, tmp_path, capsys):
    run = fit(tmp_path / "toy", *arguments(4, 2), recipe=recipe)
    assert "batch 8 clips (1 device x 4 x 2 accumulated)" in capsys.readouterr().out
    assert clips(run) == clips(whole) and len(clips(run)) == 32
    assert counts(run) == counts(whole) == [(str(i), str(8 * i)) for i in range(1, 5)]
    for one in (run, whole):
        content = checkpoint(one, "autoencoder")
        assert (content["global_step"], content["vgen"]["step"], content["vgen"]["clips"]) == (4, 4, 32)
        assert content["callbacks"]["EMA"]["updates"] == 4
        assert content["lr_schedulers"][0]["last_epoch"] == 4


def test_both_with_two_ranks(whole, recipe, tmp_path):
    run = tmp_path / "toy"
    codes, output = apart(run, *arguments(2, 2), recipe=recipe, ranks=2)
    assert codes == [0, 0] and "batch 8 clips (2 devices x 2 x 2 accumulated)" in output, output
    every = clips(run, 0) + clips(run, 1)
    assert counts(run) == counts(whole) and len(every) == 32
    for step in range(4):  # the same eight clips in every step, in two halves
        parts = [clips(run, rank)[4 * step : 4 * step + 4] for rank in range(2)]
        assert sorted(parts[0] + parts[1]) == sorted(clips(whole)[8 * step : 8 * step + 8])


def test_killed_between_the_batches_of_a_step(recipe, tmp_path):
    """The sixth backward pass is the second of step 3; the checkpoint is that of step 2."""
    one, other = tmp_path / "whole", tmp_path / "toy"
    assert apart(one, *arguments(4, 2), recipe=recipe)[0] == [0]
    codes, _ = apart(other, *arguments(4, 2), recipe=recipe, VGEN_KILL="autoencoder:step:6:rank0")
    assert codes == [-9] and checkpoint(other, "autoencoder")["vgen"]["clips"] == 16
    assert apart(other, "--resume", *arguments(4, 2), recipe=recipe)[0] == [0]
    assert_same(one, other, ["autoencoder"])


def test_different_numbers_of_ranks_by_two_commands(recipe, tmp_path):
    """The first stage on two ranks, the second on one."""
    run = tmp_path / "toy"
    codes, output = apart(run, "--only", "autoencoder", recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    fit(run, "--only", "diffusion", recipe=recipe)
    ranks = [torch.load(run / s / "rank0.pt", weights_only=True)["world_size"] for s in ("autoencoder", "diffusion")]
    assert ranks == [2, 1] and checkpoint(run)["vgen"]["clips"] == 14
    assert checkpoint(run)["vgen"]["init_args"]["codec"]["path"] == "run://autoencoder/checkpoints/last.ckpt"
