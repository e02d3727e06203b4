"""torch.compile in place: names, checkpoints, averages and numbers stay what they are."""

import shutil

import pytest
import torch

from tests.tiny_lfdm import FRAMES, SIDE, autoencoder, lfdm
from vgen.callbacks import EMA, Checkpoint, Compile
from vgen.callbacks.compile import compile_networks


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(module):
    return [name for name, child in module.named_modules() if child._compiled_call_impl is not None]


def test_what_trains_is_compiled_and_nothing_else(two_stage):
    assert compile_networks(two_stage, "eager") == ["denoiser"]
    assert compiled(two_stage) == ["denoiser"]


def test_training_is_the_same_with_the_same_names(model, data, trainer, tmp_path):
    torch.manual_seed(0)
    states = []
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for callbacks in ((), (Compile("aot_eager"),)):
        model.load_state_dict(start)
        torch.manual_seed(1)
        trainer(*callbacks, max_steps=3).fit(model, datamodule=data)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    assert compiled(model)
    assert states[0].keys() == states[1].keys() == start.keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-6, rtol=1e-5)


def test_checkpoints_and_averages_of_a_compiled_run_are_ordinary(model, data, trainer, tmp_path):
    ema = EMA(0.5)
    folder = tmp_path / "checkpoints"
    run = trainer(ema, Compile("eager"), Checkpoint(), max_steps=2, enable_checkpointing=True)
    run.fit(model, datamodule=data)
    content = torch.load(folder / "last.ckpt", weights_only=True)
    assert content["state_dict"].keys() == model.state_dict().keys()
    assert not any("_orig_mod" in name for name in [*content["state_dict"], *ema.shadow])
    assert ema.updates == 2
    again = trainer(EMA(0.5), Checkpoint(), max_steps=4, enable_checkpointing=True)  # resumed without compiling
    again.fit(model, datamodule=data, ckpt_path=str(folder / "last.ckpt"))
    assert again.global_step == 4


def loss_and_gradients(model, frames):
    torch.manual_seed(3)
    batch = {"video": torch.rand(2, 3, frames, SIDE, SIDE) * 2 - 1, "label": torch.tensor([0, 1])}
    loss = model.loss(batch)["loss"]
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def first_stage():
    torch.manual_seed(0)
    return autoencoder().train()


def second_stage():
    torch.manual_seed(0)
    return lfdm(autoencoder()).train()


def check_compiled(make, frames, backend):
    plain, other = make(), make()
    keys = list(other.state_dict())
    assert compile_networks(other, backend)
    assert list(other.state_dict()) == keys
    expected, found = loss_and_gradients(plain, frames), loss_and_gradients(other, frames)
    torch.testing.assert_close(found[0], expected[0], atol=1e-4, rtol=1e-4)
    assert found[1].keys() == expected[1].keys()
    norms = [torch.stack([g.norm() for g in gradients.values()]).norm() for gradients in (found[1], expected[1])]
    torch.testing.assert_close(*norms, atol=0, rtol=1e-2)


@pytest.mark.parametrize("make, frames", [(first_stage, 2), (second_stage, FRAMES)], ids=["lfae", "unet"])
def test_lfdm_compiles(make, frames):
    check_compiled(make, frames, "eager")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("make, frames", [(first_stage, 2), (second_stage, FRAMES)], ids=["lfae", "unet"])
def test_lfdm_compiles_with_inductor(make, frames):
    check_compiled(make, frames, "inductor")
