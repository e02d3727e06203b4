"""Adversarial training through the command line: several ranks, kills, and what is refused."""

from pathlib import Path

import torch

from tests.mechanics.runs import REPOSITORY, assert_same, checkpoint, fit, fit_apart, rows

RECIPE = Path(__file__).with_name("gan.yaml")
OVERLAY = REPOSITORY / "lightning_configs" / "overlays" / "ddp.yaml"
TWO = ("--all_stages.trainer.accelerator=cpu", "--all_stages.trainer.devices=2")


def test_two_ranks_train_the_same_networks(tmp_path):
    done = fit_apart(tmp_path / "gan", "--config", str(OVERLAY), *TWO, recipe=RECIPE)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / "gan" / "gan" / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for key, value in ranks[0]["weights"].items():
        # statistics of BatchNorm are each rank's own
        if "running" not in key:
            assert torch.equal(value, ranks[1]["weights"][key]), key
    assert not set(ranks[0]["clips"]) & set(ranks[1]["clips"])
    content = checkpoint(tmp_path / "gan", "gan")
    assert content["global_step"] == 4 and content["vgen"]["clips"] == 4 * 4 * 2


def test_plain_ddp_is_refused_in_one_line(tmp_path):
    done = fit_apart(tmp_path / "gan", *TWO, "--all_stages.trainer.strategy=ddp", recipe=RECIPE)
    assert done.returncode == 2 and "take turns" in done.stderr
    assert "vgen.training.DataParallel" in done.stderr and "Traceback" not in done.stderr


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch):
    fit(tmp_path / "whole", recipe=RECIPE)
    assert [row["step"] for row in rows(tmp_path / "whole", "gan") if row["train/loss"]] == ["1", "2", "3", "4"]
    monkeypatch.setenv("TOY_TRAP", "gan:3:raise")
    fit(tmp_path / "stopped", recipe=RECIPE, code=1)
    monkeypatch.delenv("TOY_TRAP")
    fit(tmp_path / "stopped", "--resume", recipe=RECIPE)
    assert_same(tmp_path / "whole", tmp_path / "stopped", ["gan"])
