"""Checkpoints: safe to read, complete, no larger than they must be, the same from Python and from a recipe."""

import shutil

import pytest
import torch
from lightning.pytorch import Trainer

import vgen
from tests.mechanics.runs import assert_same, checkpoint, checkpoint_path, differences, fit
from tests.mechanics.toy import Activation, ToyAutoencoder, ToyClips, ToyDiffusion, ToyNetwork
from vgen.callbacks import EMA, AtomicCheckpointIO, Checkpoint
from vgen.errors import UserError
from vgen.weights import Handoff
from vgen.weights.checkpoint import read_model_file

IMAGES = {"image": torch.zeros(3, 8, 8), "label": "left"}


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "toy")


def test_every_checkpoint_is_read_without_pickle(finished):
    paths = list(finished.rglob("*.ckpt"))
    assert len(paths) == 3
    for path in paths:
        content = torch.load(path, weights_only=True)
        assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "vgen"} <= content.keys()


def test_the_header(finished):
    header = checkpoint(finished)["vgen"]
    assert set(header) == {"format", "family", "stage", "run", "class_path", "init_args", "clip_spec", "step", "clips"}
    assert (header["stage"], header["step"], header["clips"]) == ("diffusion", 7, 14)
    assert header["class_path"] == "tests.mechanics.toy.ToyDiffusion"
    assert header["clip_spec"]["class_names"] == ["left", "right"] and header["clip_spec"]["frames"] == 2


def test_no_path_of_this_machine_is_in_a_checkpoint(finished):
    for path in finished.rglob("*.ckpt"):
        assert str(finished).encode() not in path.read_bytes()


def test_a_frozen_codec_is_not_in_the_second_stages_file(finished):
    content = checkpoint(finished)
    assert not [key for key in content["state_dict"] if key.startswith("codec")]
    assert not [key for key in content["callbacks"]["EMA"]["shadow"] if key.startswith("codec")]
    trained = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    assert trained == len(content["callbacks"]["EMA"]["shadow"]) == 6


def test_load_builds_both_stages(finished):
    model = vgen.load(finished)
    assert type(model) is ToyDiffusion and not model.training and not model.codec.network.training
    first = vgen.load(finished, stage="autoencoder", weights="raw")
    assert type(first) is ToyAutoencoder
    assert not differences(first.state_dict(), model.codec.network.state_dict())
    batch = {"video": torch.zeros(1, 3, 2, 8, 8)}
    assert first.reconstruct(batch).shape == (1, 3, 2, 8, 8)


def test_load_takes_the_average_where_there_is_one(finished):
    raw, average = checkpoint(finished)["state_dict"], checkpoint(finished)["callbacks"]["EMA"]["shadow"]
    for weights, expected in (("raw", raw), ("ema", raw | average), ("auto", raw | average)):
        assert not differences(vgen.load(finished, weights=weights).state_dict(), expected)
    assert differences(raw, raw | average)


@pytest.mark.parametrize("inside", ["", "diffusion", "diffusion/checkpoints/last.ckpt"])
def test_what_load_opens(finished, inside):
    assert type(vgen.load(finished / inside)) is ToyDiffusion


def test_samples_depend_on_nothing_but_condition_and_seed(finished):
    model = vgen.load(finished)
    four = model.sample(n=4, seeds=[5, 6, 7, 8], **IMAGES)
    two = model.sample(n=2, seeds=[8, 6], **IMAGES)
    assert four.shape == (4, 3, 2, 8, 8) and torch.equal(two, four[[3, 1]])
    assert model.sample(n=1, frames=5, **IMAGES).shape[2] == 5


def test_a_moved_run_still_loads_and_goes_on(finished, tmp_path):
    old = shutil.copytree(finished, tmp_path / "old" / "toy")
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    old.rename(moved)
    assert torch.equal(vgen.load(moved).sample(n=1, **IMAGES), vgen.load(finished).sample(n=1, **IMAGES))
    longer = "--all_stages.trainer.max_steps=8"
    fit(moved, longer, "--only", "autoencoder", "--resume")
    assert_same(moved, fit(tmp_path / "new", longer, "--only", "autoencoder"), ["autoencoder"], ["last", "best"])


def test_a_changed_codec_is_refused(run, capsys):
    path = checkpoint_path(run, "autoencoder")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["network.decoder.bias"] += 1
    torch.save(content, path)
    with pytest.raises(UserError, match="has changed") as error:
        vgen.load(run)
    assert error.value.where == str(path)


def test_a_missing_codec_is_named(run):
    checkpoint_path(run, "autoencoder").unlink()
    with pytest.raises(UserError) as error:
        vgen.load(run)
    assert "autoencoder" in str(error.value)


def test_a_damaged_file_is_named(run):
    path = checkpoint_path(run)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="damaged") as error:
        vgen.load(run)
    assert error.value.where == str(path)


def test_a_file_that_could_run_code_is_refused(run):
    path = checkpoint_path(run)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "surprise": print}, path)
    with pytest.raises(UserError, match="could run code"):
        vgen.load(run)


def test_a_file_of_a_later_version_is_refused(run):
    path = checkpoint_path(run)
    content = torch.load(path, weights_only=True)
    content["vgen"]["format"] = 99
    torch.save(content, path)
    with pytest.raises(UserError, match="later vgen"):
        vgen.load(run)


def test_somebody_elses_checkpoint_is_refused(run):
    path = checkpoint_path(run)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="not a vgen checkpoint"):
        vgen.load(run)


def test_code_of_an_unknown_package_is_not_imported(run):
    path = checkpoint_path(run)
    content = torch.load(path, weights_only=True)
    content["vgen"]["class_path"] = "antigravity.Model"
    torch.save(content, path)
    with pytest.raises(UserError, match="code of another package: antigravity"):
        vgen.load(run)


def trainer(folder, **options):
    io = AtomicCheckpointIO()
    callbacks = [Checkpoint(), EMA(decay=0.9)]
    return Trainer(
        accelerator="cpu", devices=1, max_steps=2, logger=False, callbacks=callbacks, plugins=[io],
        default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, **options,
    )  # fmt: skip


def test_a_model_built_in_python_saves_the_same_kind_of_file(finished, tmp_path):
    """The same classes without a recipe: the description has the same keys and builds the same model."""
    data = ToyClips()
    first = ToyAutoencoder(data.clip_spec, ToyNetwork(dim=6, activation=Activation("relu")), noise=0.2)
    trainer(tmp_path / "a").fit(first, datamodule=data)
    path = tmp_path / "a" / "checkpoints" / "last.ckpt"
    made, theirs = (torch.load(p, weights_only=True) for p in (path, checkpoint_path(finished, "autoencoder")))
    assert made["vgen"].keys() == theirs["vgen"].keys()
    assert made["vgen"]["init_args"].keys() == theirs["vgen"]["init_args"].keys()
    assert made["vgen"]["init_args"]["network"] == {
        "class_path": "tests.mechanics.toy.ToyNetwork",
        "init_args": {
            "dim": 6,
            "dropout": 0.1,
            "activation": {
                "class_path": "tests.mechanics.toy.Activation",
                "init_args": {"kind": "relu", "slope": 0.1},
            },
        },
    }
    again = vgen.load(path, weights="raw")
    assert not differences(again.state_dict(), first.state_dict()) and again.noise == 0.2

    second = ToyDiffusion(data.clip_spec, ToyNetwork(), Handoff(str(path), weights="ema"))
    trainer(tmp_path / "b").fit(second, datamodule=data)
    model = vgen.load(tmp_path / "b" / "checkpoints" / "last.ckpt")
    assert torch.equal(model.sample(n=1, **IMAGES), vgen.load(tmp_path / "b").sample(n=1, **IMAGES))
    assert read_model_file(path).ema is not None


def test_a_codec_that_comes_from_no_file_is_kept_with_its_weights(tmp_path):
    data = ToyClips()
    first = ToyAutoencoder(data.clip_spec, ToyNetwork(dim=6))
    trainer(tmp_path).fit(ToyDiffusion(data.clip_spec, ToyNetwork(), first), datamodule=data)
    model = vgen.load(tmp_path)
    assert not differences(model.codec.network.state_dict(), first.state_dict())
    assert not any(p.requires_grad for p in model.codec.parameters())


def test_what_records_nothing_is_refused_before_training(tmp_path):
    class Bare(torch.nn.Module):
        pass

    class Network(ToyNetwork):
        def __init__(self, extra=None):
            super().__init__()
            self.extra = extra

    data = ToyClips()
    with pytest.raises(UserError, match="does not record its constructor arguments") as error:
        trainer(tmp_path).fit(ToyAutoencoder(data.clip_spec, Network(Bare())), datamodule=data)
    assert "extra" in str(error.value) and not list(tmp_path.rglob("*.ckpt"))


def test_a_recipe_stage_stands_for_nothing_in_python():
    with pytest.raises(UserError, match="stage of a recipe"):
        ToyDiffusion(ToyClips().clip_spec, ToyNetwork(), Handoff("stage://autoencoder/last"))
