"""The LightningModule bases, without a command line."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from tests.mechanics.toy import ToyAutoencoder, ToyClips, ToyDiffusion, ToyNetwork
from vgen.errors import UserError
from vgen.training import SingleLossModule, VideoModule
from vgen.video import ClipSpec

SPEC = ClipSpec(2, 8, 8, class_names=("left", "right"), condition_keys=("label", "text"))


def fit(model, tmp_path, **options):
    trainer = Trainer(**{
        "accelerator": "cpu", "devices": 1, "max_steps": 3, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "use_distributed_sampler": False,
        "default_root_dir": tmp_path, "num_sanity_val_steps": 0, **options,
    })  # fmt: skip
    trainer.fit(model, datamodule=ToyClips())
    return trainer


def test_conditions_are_what_the_data_offers():
    module = VideoModule(SPEC)
    batch = {"video": 0, "label": 1, "path": 2}
    assert module.conditions(batch) == {"label": 1}


def test_bytes_become_floats_once():
    module = VideoModule(SPEC)
    video = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 1, 2)
    batch = module.on_after_batch_transfer({"video": video, "label": 3}, 0)
    assert batch["video"].flatten().tolist() == [-1.0, 1.0] and batch["label"] == 3
    assert module.on_after_batch_transfer(batch, 0) is batch


def test_loss_terms_are_logged_by_name(tmp_path):
    trainer = fit(ToyAutoencoder(SPEC, ToyNetwork()), tmp_path)
    assert {"train/loss", "train/mse", "val/loss", "val/mse"} >= set(trainer.callback_metrics)
    assert {"train/loss", "train/mse"} <= set(trainer.callback_metrics)


def test_clips_are_counted(tmp_path):
    model = ToyAutoencoder(SPEC, ToyNetwork())
    fit(model, tmp_path, max_steps=4)
    assert model.clips_seen == 8
    assert model.header()["clips"] == 8


def test_only_what_trains_is_optimised():
    codec = ToyAutoencoder(SPEC, ToyNetwork(dim=6))
    model = ToyDiffusion(SPEC, ToyNetwork(), codec)
    groups = model.configure_optimizers().param_groups
    assert sum(len(g["params"]) for g in groups) == len(list(model.denoiser.parameters()))


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_schedules(interval):
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    model = ToyAutoencoder(SPEC, ToyNetwork(), lr_scheduler=schedule, lr_interval=interval)
    found = model.configure_optimizers()["lr_scheduler"]
    assert found["interval"] == interval and isinstance(found["scheduler"], torch.optim.lr_scheduler.StepLR)


def test_a_module_without_a_loss_says_so():
    with pytest.raises(NotImplementedError, match="must define loss"):
        SingleLossModule(SPEC).training_step({}, 0)


def test_predictions_sample_or_reconstruct(tmp_path):
    first = ToyAutoencoder(SPEC, ToyNetwork())
    second = ToyDiffusion(SPEC, ToyNetwork(), first)
    for model in (first, second):
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
        clips = torch.cat(trainer.predict(model, datamodule=ToyClips()))
        assert clips.shape == (4, 3, 2, 8, 8) and clips.abs().max() <= 1


def test_a_model_that_can_do_neither_predicts_nothing():
    with pytest.raises(UserError, match="nothing to predict"):
        VideoModule(SPEC).predict_step({}, 0)


def test_weights_that_do_not_fit_are_named():
    model, other = ToyAutoencoder(SPEC, ToyNetwork()), ToyAutoencoder(SPEC, ToyNetwork(dim=7))
    with pytest.raises(UserError, match="has shape"):
        model.on_load_checkpoint({"state_dict": other.state_dict()})
    state = model.state_dict()
    state.pop("network.decoder.bias")
    with pytest.raises(UserError, match=r"lacks weight 'network.decoder.bias'"):
        model.on_load_checkpoint({"state_dict": state})


def test_the_description_is_checked_before_training(tmp_path):
    model = ToyAutoencoder(SPEC, ToyNetwork(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    with pytest.raises(UserError, match="does not record its constructor arguments"):
        fit(model, tmp_path)
