"""Adversarial training through the command line: several ranks, kills, and what is refused."""

from pathlib import Path

import pytest
import torch

from tests.mechanics.processes import apart
from tests.mechanics.runs import REPOSITORY, assert_same, checkpoint, fit, rows

RECIPE = Path(__file__).with_name("gan.yaml")
OVERLAY = REPOSITORY / "lightning_configs" / "overlays" / "ddp.yaml"
CPU = "--all_stages.trainer.accelerator=cpu"
STAGES = ("gan", "noise")


def test_two_ranks_train_the_same_networks(tmp_path):
    codes, output = apart(tmp_path / "gan", "--config", str(OVERLAY), CPU, recipe=RECIPE, ranks=2)
    assert codes == [0, 0], output
    for stage in STAGES:
        ranks = [torch.load(tmp_path / "gan" / stage / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
        for key, value in ranks[0]["weights"].items():
            # statistics of BatchNorm are each rank's own
            if "running" not in key:
                assert torch.equal(value, ranks[1]["weights"][key]), key
        assert any(not torch.equal(v, ranks[1]["weights"][k]) for k, v in ranks[0]["weights"].items()), "statistics"
        assert not set(ranks[0]["clips"]) & set(ranks[1]["clips"])
        content = checkpoint(tmp_path / "gan", stage)
        assert content["global_step"] == 4 and content["vgen"]["clips"] == 4 * 4 * 2
        assert not [name for name in ranks[0]["average"] if "discriminator" in name]
        assert (tmp_path / "gan" / stage / "checkpoints" / "best.ckpt").is_file()
    critic = {k: v for k, v in ranks[0]["weights"].items() if k.startswith("discriminator.") and v.ndim >= 4}
    largest = [float(torch.linalg.matrix_norm(v.flatten(1), ord=2)) for v in critic.values()]
    assert len(largest) == 5 and max(largest) == pytest.approx(1, abs=1e-4)


def test_plain_ddp_is_refused_in_one_line(tmp_path):
    plain = (CPU, "--all_stages.trainer.strategy=ddp")
    codes, output = apart(tmp_path / "gan", *plain, recipe=RECIPE, ranks=2, launcher="lightning")
    assert codes == [2] and "take turns" in output
    assert "vgen.training.DataParallel" in output and "Traceback" not in output


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch):
    fit(tmp_path / "whole", recipe=RECIPE)
    for stage in STAGES:
        assert [row["step"] for row in rows(tmp_path / "whole", stage) if row["train/loss"]] == ["1", "2", "3", "4"]
        monkeypatch.setenv("TOY_TRAP", f"{stage}:3:raise")
        fit(tmp_path / "stopped", "--resume", recipe=RECIPE, code=1)
    monkeypatch.delenv("TOY_TRAP")
    fit(tmp_path / "stopped", "--resume", recipe=RECIPE)
    assert_same(tmp_path / "whole", tmp_path / "stopped", STAGES)
    assert checkpoint(tmp_path / "stopped", "noise")["discriminator_steps"] == 4


@pytest.mark.parametrize("setting", ["gradient_clip_val=1.0", "accumulate_grad_batches=2"])
def test_what_the_trainer_cannot_do_here_is_said_in_one_line(tmp_path, setting, capsys):
    fit(tmp_path / "gan", f"--all_stages.trainer.{setting}", recipe=RECIPE, code=2)
    message = capsys.readouterr().err
    assert setting.partition("=")[0] in message and "model.init_args" in message and "Traceback" not in message
