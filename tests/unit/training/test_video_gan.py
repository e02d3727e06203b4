"""Generators from noise against discriminators: who steps how often, what is done behind a step, what is logged."""

import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from tests.mechanics.toy import ToyClips
from tests.tiny_gan import batch, small_mocogan, small_tgan, small_vgan, spec
from vgen.callbacks import EMA, AtomicCheckpointIO, Checkpoint, CollapseAlarm
from vgen.errors import UserError
from vgen.losses import GradientPenalty
from vgen.training import SingularValueClipping, WeightClipping
from vgen.training.clip_statistics import ClipStatistics, diversity, sliced_wasserstein
from vgen.training.gan import opposed
from vgen.training.schedules import WarmupCosine
from vgen.training.video_gan import Draw


@pytest.fixture
def data():
    return ToyClips(size=16, frames=16, batch_size=4)


def fit(model, data, folder, *callbacks, **options):
    options = {"max_steps": 2, "limit_val_batches": 0, **options}
    path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        use_distributed_sampler=False, num_sanity_val_steps=0, default_root_dir=str(folder),
        callbacks=[*callbacks, Checkpoint()], plugins=[AtomicCheckpointIO()], **options,
    )  # fmt: skip
    trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    return trainer


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


class Terms(Callback):
    """What was logged behind every step."""

    def __init__(self):
        self.logged = []

    def on_train_batch_end(self, trainer, module, *args):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_several_steps_of_the_discriminators(tmp_path):
    data = ToyClips(size=16, frames=16, batch_size=8)
    schedule = partial(WarmupCosine, warmup_steps=0, total_steps=4)
    model = small_vgan(data.clip_spec, critic_steps=2, micro_batches=2, lr_scheduler=schedule, generator_clip=1e-3)
    terms, average = Terms(), EMA(decay=0.5)
    model.penalty = GradientPenalty("r1", 1.0, every=4)
    norms, seen = [], []

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            turn = trainer.optimizers.index(optimizer)
            seen.append(turn)
            if turn == 0:
                norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in module.generator.parameters()])))

    trainer = fit(model, data, tmp_path, terms, average, Norms(), max_steps=2)
    assert trainer.global_step == 2 and model.discriminator_steps == 4 and average.updates == 2
    assert seen == [1, 1, 0] * 2 and max(norms) <= 1.001e-3
    assert {name.partition(".")[0] for name in average.shadow} == {"generator"}
    # schedules count the generator's steps
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([5e-4, 5e-4])
    # only at the last of the four steps
    assert [logged["train/d_penalty_video"] > 0 for logged in terms.logged] == [False, True]
    assert {"train/loss", "train/mask", "train/d_loss", "train/d_wins_video"} <= set(terms.logged[1])
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 2 and content["discriminator_steps"] == 4


def test_one_pass_gives_both_their_own_gradient(data):
    """TGAN's single pass against one backward pass for each side."""
    together, apart = (small_tgan(data.clip_spec).train() for _ in range(2))
    video, codes = torch.rand(4, 3, 16, 16, 16) * 2 - 1, torch.rand(4, 8) * 2 - 1
    together.latents = lambda n: {"slow": codes}
    together.discriminator_loss({"video": video})["loss"].backward()
    fake = apart.generator(codes)
    critic = [p for name, p in apart.discriminator.named_parameters() if "unused" not in name]
    wanted = torch.autograd.grad(-apart.discriminator(fake).mean(), list(apart.generator.parameters()))
    loss = apart.discriminator(fake.detach()).mean() - apart.discriminator(video).mean()
    wanted += torch.autograd.grad(loss, critic)
    found = [p.grad for p in together.generator.parameters()]
    found += [p.grad for name, p in together.discriminator.named_parameters() if "unused" not in name]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-3)


def test_one_pass_moves_both(data, tmp_path):
    model, before = small_tgan(data.clip_spec), weights(small_tgan(data.clip_spec))
    trainer = fit(model, data, tmp_path, max_steps=3)
    assert trainer.global_step == 3 and model.discriminator_steps == 3
    same = [name for name, value in weights(model).items() if torch.equal(value, before[name])]
    assert same == ["discriminator.unused_norm.weight", "discriminator.to_score.bias"]  # differences have no constant
    assert {"train/loss", "train/d_loss", "train/d_wins_critic"} <= set(trainer.callback_metrics)


def test_what_opposes_is_the_same_clip():
    x = torch.randn(5, requires_grad=True)
    assert torch.equal(opposed(x), x)
    (3 * opposed(x)).sum().backward()
    assert torch.equal(x.grad, torch.full((5,), -3.0))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_critic_stays_constrained(data, tmp_path, precision):
    rate = partial(torch.optim.RMSprop, lr=0.1)
    model = small_tgan(data.clip_spec, constraint=SingularValueClipping(every=2), discriminator_optimizer=rate)
    largest = []

    class Largest(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            matrices = [p.detach().flatten(1) for p in module.discriminator.parameters() if p.ndim >= 4]
            largest.append(max(float(torch.linalg.matrix_norm(m, ord=2)) for m in matrices))

    fit(model, data, tmp_path, Largest(), max_steps=4, precision=precision)
    assert min(largest[0], largest[2]) > 1.1 and max(largest[1], largest[3]) == pytest.approx(1, abs=1e-5)
    for norm in (level.norm for level in model.discriminator.levels if level.norm is not None):
        assert (norm.weight / norm.running_var.sqrt() <= 1 + 1e-6).all() and (norm.weight > 0).all()


def test_weights_may_be_clipped_instead(data, tmp_path):
    model = small_tgan(data.clip_spec, constraint=WeightClipping(limit=0.02))
    fit(model, data, tmp_path, max_steps=1)
    assert max(float(p.detach().abs().max()) for p in model.discriminator.parameters()) <= 0.02
    with pytest.raises(UserError, match="at least 1, got 0"):
        WeightClipping(every=0)


def test_validation_chooses_a_checkpoint(data, tmp_path):
    trainer = fit(
        small_mocogan(data.clip_spec), data, tmp_path, max_steps=1, limit_val_batches=None, val_check_interval=1
    )
    assert {"val/loss", "val/swd", "val/diversity"} <= set(trainer.callback_metrics)
    assert 0 < trainer.callback_metrics["val/diversity"] < 1 and trainer.callback_metrics["val/swd"] > 0


def test_statistics_know_equal_clips_from_collapsed_ones():
    torch.manual_seed(1)
    real, other = torch.rand(2, 64, 3, 4, 16, 16) * 2 - 1
    found = {}
    for name, fake in {"same": real.roll(1, 0), "other": other, "one": real[:1].expand_as(real)}.items():
        statistics = ClipStatistics()
        for part in range(0, 64, 32):
            statistics.add(real[part : part + 32], fake[part : part + 32])
        found[name] = statistics.compute(lambda x: x)
    assert found["same"]["swd"] < 1e-6 < found["other"]["swd"] < found["one"]["swd"]
    assert found["same"]["diversity"] == pytest.approx(1) and found["one"]["diversity"] < 1e-3
    shifted = ClipStatistics()
    shifted.add(real, real + 0.5)
    assert 0.25 < shifted.compute(lambda x: x)["swd"] < 0.6  # 0.5 times the mean magnitude of a normal number, 0.8
    assert sliced_wasserstein(torch.zeros(4, 50), torch.ones(4, 50)) == 1
    assert diversity(real.flatten(1), 2 * real.flatten(1)) == pytest.approx(2)
    assert ClipStatistics().compute(lambda x: x) == {}


def test_noise_is_a_function_of_the_seed_and_the_frame():
    short, long = Draw((3,), frames=4), Draw((3,), frames=9)
    assert torch.equal(short.of_seed(5), long.of_seed(5)[:4]) and short.many(2).shape == (2, 4, 3)
    assert Draw((50,), "uniform").many(100).abs().max() <= 1 and Draw((50,), "uniform").of_seed(1).min() < -0.5
    assert set(Draw((), "category", choices=3).many(200).tolist()) == {0, 1, 2}


def test_penalties():
    model = small_vgan().train()
    real = batch()["video"]
    for kind, size in (("r1", 0.0), ("wgan_gp", 1.0)):
        penalty = GradientPenalty(kind, 10.0)
        value = penalty(lambda x: 0.0 * x.sum(dim=(1, 2, 3, 4)), real, real)  # a flat discriminator
        assert value == pytest.approx(10.0 * size, abs=1e-4)
    GradientPenalty()(model._score, real, real).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.discriminator.parameters())
    with pytest.raises(UserError, match="at least 1"):
        GradientPenalty(every=0)


def test_what_cannot_be_trained_is_named(data):
    with pytest.raises(UserError, match="nothing judges"):
        small_vgan(discriminator=None).setup("fit")
    with pytest.raises(UserError, match="must be at least 1, got 0"):
        small_vgan(critic_steps=0)
    with pytest.raises(UserError, match=r"no option 'cdoe'"):
        small_vgan().sample(options={"cdoe": 1})
    with pytest.raises(UserError, match="multiples of 16"):
        small_vgan(spec(frames=12))


class TestAlarm:
    def trainer(self, **metrics):
        values = {name.replace("__", "/"): torch.tensor(value) for name, value in metrics.items()}
        facts = {"callback_metrics": values, "log_every_n_steps": 10, "sanity_checking": False}
        return SimpleNamespace(**facts, state=SimpleNamespace(fn=TrainerFn.FITTING), global_step=0)

    def said(self, alarm, trainer, step, hook="on_train_batch_end"):
        trainer.global_step = step
        arguments = (None, None, None, 0) if hook == "on_train_batch_end" else (None,)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(alarm, hook)(trainer, *arguments)
        return [str(warning.message) for warning in caught]

    def test_a_discriminator_that_wins_for_long(self):
        alarm, trainer = CollapseAlarm(most_wins=0.99, for_steps=50), self.trainer(train__d_wins_video=1.0)
        assert not [text for step in range(1, 60) for text in self.said(alarm, trainer, step)]
        again = CollapseAlarm(most_wins=0.99, for_steps=50)
        again.load_state_dict(alarm.state_dict())
        (text,) = self.said(again, trainer, 60)
        assert "step 60: the video discriminator has won since step 10" in text and "lower" in text
        assert not self.said(again, trainer, 70)  # it says so once
        trainer.callback_metrics["train/d_wins_video"] = torch.tensor(0.8)
        assert not self.said(again, trainer, 80)
        trainer.callback_metrics["train/d_wins_video"] = torch.tensor(1.0)
        assert not self.said(again, trainer, 90) and self.said(again, trainer, 140)
        assert not self.said(CollapseAlarm(most_wins=None), trainer, 5000)

    def test_clips_that_become_alike(self):
        alarm, trainer = CollapseAlarm(least_diversity=0.3, for_steps=50), self.trainer(val__diversity=0.0)
        check = partial(self.said, alarm, trainer, hook="on_validation_end")
        assert not check(step=10)  # it has not learned anything yet
        trainer.callback_metrics["val/diversity"] = torch.tensor(0.7)
        assert not check(step=20)
        trainer.callback_metrics["val/diversity"] = torch.tensor(0.2)
        (text,) = check(step=30)
        assert "0.20 of the diversity" in text and "best.ckpt" in text and not check(step=40)
        late = CollapseAlarm(least_diversity=0.3, for_steps=50)
        assert self.said(late, trainer, 60, "on_validation_end")
