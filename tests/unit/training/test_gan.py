"""Adversarial training: what counts as a step, who moves when, and that parts of a batch are one batch."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from tests.mechanics.toy import ToyClips, ToyNetwork
from vgen.callbacks import EMA, AtomicCheckpointIO, Checkpoint, NonFinite, OptimizerStats
from vgen.errors import UserError
from vgen.training import AdversarialModule
from vgen.training.gan import cut
from vgen.training.schedules import WarmupCosine


class ToyGAN(AdversarialModule):
    """A toy autoencoder that a toy network judges."""

    def __init__(self, clip_spec, judged=True, parts=1, **arguments):
        super().__init__(clip_spec, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.SGD, lr=0.2), **arguments)
        self.network, self.parts = ToyNetwork(dropout=0.0), parts
        self.network.encoder[1] = torch.nn.Identity()  # no statistics of a batch: parts are to equal the whole
        self.judge = torch.nn.Conv3d(3, 1, 1) if judged else None

    @property
    def discriminators(self):
        return {} if self.judge is None else {"judge": self.judge}

    def loss(self, batch):
        return {"loss": (self.network(batch["video"]) - batch["video"]).square().mean()}

    def fooling(self, batch):
        return {"loss": -self.judge(self.network(batch["video"])).mean() + self.loss(batch)["loss"]}

    def judging(self, batch):
        real, fake = self.judge(batch["video"]), self.judge(self.network(batch["video"]).detach())
        return {"loss": fake.mean() - real.mean() + 0.1 * (real.square().mean() + fake.square().mean())}

    def training_step(self, batch, batch_idx):
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        terms = self.update_generator(cut(batch, self.parts), self.fooling)
        judged = self.update_discriminators(cut(batch, self.parts), self.judging)
        self._log_terms("train", terms | {"d_loss": judged["loss"]}, batch)


class Watch(Callback):
    """Weights and steps behind every batch, and which optimisers were announced."""

    def __init__(self):
        self.steps, self.weights, self.announced = [], [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.announced.append(trainer.optimizers.index(optimizer))

    def on_train_batch_end(self, trainer, module, *args):
        self.steps.append(trainer.global_step)
        self.weights.append({name: value.detach().clone() for name, value in module.named_parameters()})


@pytest.fixture
def data():
    return ToyClips()


def fit(model, data, folder, *callbacks, **options):
    options = {"max_steps": 4, "limit_val_batches": 0, **options}
    path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        use_distributed_sampler=False, num_sanity_val_steps=0, default_root_dir=str(folder),
        callbacks=[*callbacks, Checkpoint()], plugins=[AtomicCheckpointIO()], **options,
    )  # fmt: skip
    trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    return trainer


def gan(data, **arguments):
    torch.manual_seed(0)
    return ToyGAN(data.clip_spec, **arguments)


def test_a_batch_is_one_step_of_the_generator(data, tmp_path):
    watch, average = Watch(), EMA(decay=0.5, warmup=False)
    trainer = fit(gan(data), data, tmp_path, watch, average, NonFinite(), OptimizerStats())
    assert trainer.global_step == 4 and watch.steps == [1, 2, 3, 4] and average.updates == 4
    assert watch.announced == [0, 1] * 4  # the hooks see both
    logged = trainer.callback_metrics
    assert {"train/loss", "train/d_loss", "grad_norm/network", "grad_norm/judge", "lr/0", "lr/1"} <= set(logged)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 4 and len(content["optimizer_states"]) == 2


def test_both_move_by_their_own_loss(data, tmp_path):
    """The first step by hand."""
    model, reference, watch = gan(data), gan(data), Watch()
    fit(model, data, tmp_path, watch, max_steps=1)
    torch.manual_seed(0)
    batch = next(iter(data.train_dataloader()))
    batch = reference.on_after_batch_transfer(batch, 0)
    for network, loss, rate in ((reference.network, reference.fooling, 0.1), (reference.judge, reference.judging, 0.2)):
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss(batch)["loss"], parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= rate * gradient
    for name, value in reference.named_parameters():
        torch.testing.assert_close(watch.weights[0][name], value.detach())


def test_parts_are_one_batch(data, tmp_path):
    watches = [Watch(), Watch()]
    for parts, watch in zip((1, 2), watches, strict=True):
        fit(gan(data, parts=parts), data, tmp_path / str(parts), watch)
    for name, value in watches[0].weights[-1].items():
        torch.testing.assert_close(watches[1].weights[-1][name], value)


def test_a_batch_that_cannot_be_cut():
    with pytest.raises(UserError, match="batch of 3 clips cannot be cut into 2"):
        cut({"video": torch.zeros(3, 1), "path": ["a", "b", "c"]}, 2)
    parts = cut({"video": torch.arange(4), "path": ["a", "b", "c", "d"]}, 2)
    assert parts[1]["video"].tolist() == [2, 3] and parts[1]["path"] == ["c", "d"]


def test_discriminators_are_clipped_one_by_one(data, tmp_path):
    limits = []

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.optimizers.index(optimizer) == 1:
                gradients = [p.grad for p in module.judge.parameters()]
                limits.append(float(torch.nn.utils.get_total_norm(gradients)))

    fit(gan(data, discriminator_clip=1e-3), data, tmp_path, Norms())
    assert len(limits) == 4 and max(limits) <= 1.001e-3


def test_schedules_follow_the_generator(data, tmp_path):
    schedule = partial(WarmupCosine, warmup_steps=0, total_steps=4)
    trainer = fit(gan(data, lr_scheduler=schedule, lr_interval="step"), data, tmp_path, max_steps=2)
    for optimizer, rate in zip(trainer.optimizers, (0.1, 0.2), strict=True):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate / 2)


def test_a_resumed_run_is_the_uninterrupted_one(data, tmp_path):
    watches = [Watch(), Watch()]
    fit(gan(data), data, tmp_path / "whole", watches[0], max_steps=5)
    fit(gan(data), data, tmp_path / "half", max_steps=2)
    path = str(tmp_path / "half" / "checkpoints" / "last.ckpt")
    trainer = fit(gan(data), ToyClips(), tmp_path / "half", watches[1], max_steps=5, ckpt_path=path)
    assert trainer.global_step == 5 and watches[1].steps == [3, 4, 5]
    for name, value in watches[0].weights[-1].items():
        assert torch.equal(watches[1].weights[-1][name], value)


def test_without_discriminators_lightning_optimises(data, tmp_path):
    model = gan(data, judged=False)
    assert model.automatic_optimization
    trainer = fit(model, data, tmp_path)
    assert trainer.global_step == 4 and len(trainer.optimizers) == 1


def test_what_cannot_work_is_refused_at_the_start(data):
    model = gan(data)

    def refused(**changes):
        facts = {"precision_plugin": SimpleNamespace(scaler=None), "strategy": SimpleNamespace(model=None), **changes}
        object.__setattr__(model, "_trainer", SimpleNamespace(**facts))
        model._fabric = None
        model.on_fit_start()

    refused()
    with pytest.raises(UserError, match="fp16"):
        refused(precision_plugin=SimpleNamespace(scaler=object()))
    wrapped = torch.nn.parallel.DistributedDataParallel.__new__(torch.nn.parallel.DistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.find_unused_parameters = False
    with pytest.raises(UserError, match="take turns"):
        refused(strategy=SimpleNamespace(model=wrapped))
