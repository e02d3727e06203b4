"""FSDP2 on two CPU ranks: shards in memory, everybody's files on the disk."""

import json

import pytest
import torch

import vgen
from tests.mechanics.processes import apart
from tests.mechanics.runs import assert_same, checkpoint, differences, fit, leaves, with_callbacks
from vgen.cli.main import main

SHARDED = "--all_stages.trainer.strategy={class_path: vgen.training.FullySharded}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    return with_callbacks(folder / "toy.yaml", "killer.Killer", "toy.RankRecorder", "toy.Shares")


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """Both stages on two ranks."""
    run = tmp_path_factory.mktemp("sharded") / "toy"
    codes, output = apart(run, SHARDED, recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    return run


def test_every_rank_holds_a_share(run):
    for stage in ("autoencoder", "diffusion"):
        one, two = (json.loads((run / stage / f"shares{rank}.json").read_text()) for rank in range(2))
        assert one["local"] + two["local"] == one["whole"] == two["whole"]
        assert 0 < one["local"] < one["whole"] and 0 < two["local"] < two["whole"]
        assert one["optimizer"] == 2 * one["local"] and one["average"] == one["local"]  # AdamW has two moments


def test_the_files_are_everybodys(run, finished):
    """The same keys, shapes and types as on one rank: whole tensors, a header, an average, a codec by its hash."""
    for stage in ("autoencoder", "diffusion"):
        ours, usual = checkpoint(run, stage), checkpoint(finished, stage)
        assert leaves(ours["state_dict"]).keys() == leaves(usual["state_dict"]).keys()
        assert leaves(ours["optimizer_states"]).keys() == leaves(usual["optimizer_states"]).keys()
        assert leaves(ours["callbacks"]["EMA"]).keys() == leaves(usual["callbacks"]["EMA"]).keys()
        for key, value in leaves(ours).items():
            if isinstance(value, torch.Tensor):
                assert type(value) is torch.Tensor and value.shape == leaves(usual)[key].shape, key
        assert ours["vgen"]["class_path"] == usual["vgen"]["class_path"]
    assert checkpoint(run)["vgen"]["init_args"]["codec"]["path"] == "run://autoencoder/checkpoints/last.ckpt"


def test_the_same_training_as_ddp(recipe, run, tmp_path):
    """Sums in another order, so close and not equal."""
    ddp = tmp_path / "toy"
    codes, output = apart(ddp, "--only", "autoencoder", recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    a, b = checkpoint(run, "autoencoder")["state_dict"], checkpoint(ddp, "autoencoder")["state_dict"]
    for key in a:
        assert torch.allclose(a[key], b[key], rtol=1e-4, atol=1e-6), key


@pytest.mark.parametrize("where, name", [("autoencoder:step:4:rank1", "KILL"), ("diffusion:step:3:rank0", "TERM")])
def test_it_goes_on_exactly(recipe, run, tmp_path, where, name):
    again = tmp_path / "toy"
    codes, output = apart(again, SHARDED, recipe=recipe, ranks=2, VGEN_KILL=where, VGEN_SIGNAL=name)
    assert "killer: now" in output and 0 not in codes
    codes, output = apart(again, SHARDED, "--resume", recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    assert_same(run, again)


def test_export(run, tmp_path):
    """One file, with the consolidated weights; raw and averaged ones."""
    out = tmp_path / "export"
    assert main(["export", str(run), "--out", str(out)]) == 0
    content = checkpoint(run)
    raw, average = content["state_dict"], content["callbacks"]["EMA"]["shadow"]
    assert not differences(vgen.load(out, weights="raw").state_dict(), raw)
    assert not differences(vgen.load(out).state_dict(), raw | average)
    clip = {"image": torch.zeros(3, 8, 8), "label": "left"}
    assert torch.equal(vgen.load(out).sample(n=1, **clip), vgen.load(run).sample(n=1, **clip))


def test_one_rank_goes_on_with_the_run(recipe, run, tmp_path):
    """And a run of one rank could go on here: the files do not say how many wrote them."""
    import shutil

    copy = shutil.copytree(run, tmp_path / "toy")
    fit(copy, "--resume", "--only", "autoencoder", "--all_stages.trainer.max_steps=9", recipe=recipe)
    assert checkpoint(copy, "autoencoder")["global_step"] == 9


def test_lightnings_own_strategy_is_refused(recipe, tmp_path):
    stock = "{class_path: lightning.pytorch.strategies.ModelParallelStrategy, init_args: {tensor_parallel_size: 1,"
    stock += " data_parallel_size: 2}}"
    codes, output = apart(tmp_path / "toy", f"--all_stages.trainer.strategy={stock}", recipe=recipe, ranks=2)
    assert codes == [2, 2] and "vgen.training.FullySharded" in output
