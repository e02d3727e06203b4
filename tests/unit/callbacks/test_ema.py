"""The average of the weights: what it holds, when it is in place, what a checkpoint keeps of it."""

import pytest
import torch
from lightning.pytorch import Callback

from vgen.callbacks import EMA, Checkpoint
from vgen.callbacks.ema import averaged_weights


class Recorder(Callback):
    """Copies of the trainable weights: after every step, and as validation, test and prediction see them."""

    def __init__(self):
        self.steps, self.seen = [], []

    @staticmethod
    def copy(module):
        return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}

    def on_fit_start(self, trainer, module):
        self.start = self.copy(module)

    def on_train_batch_end(self, trainer, module, *args):
        self.steps.append(self.copy(module))

    def on_validation_batch_end(self, trainer, module, *args):
        self.seen.append(self.copy(module))

    def on_test_batch_end(self, trainer, module, *args):
        self.seen.append(self.copy(module))

    on_predict_batch_end = on_test_batch_end


def expected(start, steps, decay, warmup=False):
    average = {name: value.clone() for name, value in start.items()}
    for n, weights in enumerate(steps):
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        average = {name: d * average[name] + (1 - d) * weights[name] for name in average}
    return average


def close(one, other):
    assert one.keys() == other.keys()
    return all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("warmup", [False, True])
def test_a_half_life_in_clips(model, data, trainer, warmup):
    """EDM's: 0.5^(batch / half-life), in the beginning with a twentieth of the clips seen before the step."""
    ema, recorder = EMA(half_life=10, warmup=warmup), Recorder()
    trainer(recorder, ema, max_steps=6).fit(model, datamodule=data)
    size = model.clips_seen / 6
    average = recorder.start
    for n, weights in enumerate(recorder.steps):
        half_life = min(10, 0.05 * n * size) if warmup else 10
        d = 0.5 ** (size / half_life) if half_life else 0.0
        average = {name: d * average[name] + (1 - d) * weights[name] for name in average}
    assert close(ema.shadow, average)
    again = EMA(half_life=10)
    again.load_state_dict(ema.state_dict())
    assert again.clips == model.clips_seen


@pytest.mark.parametrize("warmup", [False, True])
def test_the_formula(model, data, trainer, warmup):
    ema, recorder = EMA(decay=0.5, warmup=warmup), Recorder()
    trainer(recorder, ema, max_steps=7).fit(model, datamodule=data)
    assert ema.updates == 7 and len(recorder.steps) == 7
    assert close(ema.shadow, expected(recorder.start, recorder.steps, 0.5, warmup))
    assert not close(ema.shadow, recorder.steps[-1])


def test_warmup_ends_at_the_decay():
    decays = [min(0.5, (1 + n) / (10 + n)) for n in range(20)]
    assert decays[0] == 0.1 and decays[7] < 0.5 and decays[8] == 0.5


def test_warmup_that_counts_from_one(model, data, trainer):
    ema, recorder = EMA(decay=0.5, warmup_from=1), Recorder()
    trainer(recorder, ema, max_steps=1).fit(model, datamodule=data)
    expected = {name: 2 / 11 * start + 9 / 11 * recorder.steps[0][name] for name, start in recorder.start.items()}
    assert close(ema.shadow, expected)


def test_every_n_steps(model, data, trainer):
    ema, recorder = EMA(decay=0.5, warmup=False, every_n_steps=3), Recorder()
    trainer(recorder, ema, max_steps=7).fit(model, datamodule=data)
    assert ema.updates == 2
    assert close(ema.shadow, expected(recorder.start, [recorder.steps[2], recorder.steps[5]], 0.5))


def test_it_counts_steps_and_not_batches(model, data, trainer):
    """Two batches to a step; the first batch of all is no update either."""
    ema, recorder = EMA(decay=0.5, warmup=True), Recorder()
    trainer(recorder, ema, max_steps=2, accumulate_grad_batches=2).fit(model, datamodule=data)
    assert ema.updates == 2 and len(recorder.steps) == 4
    assert close(ema.shadow, expected(recorder.start, recorder.steps[1::2], 0.5, warmup=True))


def test_validation_sees_the_average_and_training_does_not(model, data, trainer):
    ema, recorder = EMA(decay=0.5, warmup=False), Recorder()
    seen_by_the_module = []
    model.on_validation_epoch_end = lambda: seen_by_the_module.append(Recorder.copy(model))
    trainer(recorder, ema, max_steps=6, val_check_interval=3).fit(model, datamodule=data)
    average = expected(recorder.start, recorder.steps[:3], 0.5)
    assert close(recorder.seen[0], average) and close(seen_by_the_module[0], average)
    # The step after the validation starts from the raw weights, bit by bit: the run without it is the same.
    again = type(model)(model.clip_spec, type(model.network)())
    assert not equal(recorder.steps[3], recorder.seen[0]) and again is not model


def test_validation_changes_nothing_of_the_training(data, trainer):
    from tests.mechanics.toy import ToyAutoencoder, ToyNetwork
    from vgen.callbacks import StepSeed

    ends = []
    for limit in (0, 1.0):
        torch.manual_seed(0)
        model = ToyAutoencoder(data.clip_spec, ToyNetwork())
        recorder = Recorder()
        options = {"max_steps": 6, "val_check_interval": 1, "limit_val_batches": limit}
        trainer(recorder, StepSeed(1), EMA(decay=0.5), **options).fit(model, datamodule=data)
        ends.append(recorder.steps[-1])
    assert equal(*ends)


@pytest.mark.parametrize("name", ["validate", "test", "predict"])
def test_evaluation_sees_the_average(model, data, trainer, name):
    ema, recorder = EMA(decay=0.5, warmup=False), Recorder()
    made = trainer(recorder, ema)
    made.fit(model, datamodule=data)
    recorder.seen.clear()
    getattr(made, name)(model, datamodule=data)
    assert close(recorder.seen[0], ema.shadow)
    assert equal(Recorder.copy(model), recorder.steps[-1])


def test_the_checkpoint_holds_raw_weights_and_the_average_beside_them(model, data, trainer, tmp_path):
    ema, recorder = EMA(decay=0.5), Recorder()
    made = trainer(recorder, ema, Checkpoint(monitor="val/loss"), enable_checkpointing=True, val_check_interval=2)
    made.fit(model, datamodule=data)
    for name, step in (("last", 4), ("best", None)):
        content = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        step = step or content["global_step"]
        stored = {key: content["state_dict"][key] for key in recorder.start}
        assert equal(stored, recorder.steps[step - 1])
        assert content["callbacks"]["EMA"]["updates"] == step
        assert close(content["callbacks"]["EMA"]["shadow"], expected(recorder.start, recorder.steps[:step], 0.5, True))


def test_a_resumed_run_goes_on_counting(model, data, trainer, tmp_path):
    made = trainer(EMA(decay=0.5), Checkpoint(), enable_checkpointing=True)
    made.fit(model, datamodule=data)
    ema = EMA(decay=0.5)
    path = tmp_path / "checkpoints" / "last.ckpt"
    trainer(ema, max_steps=6).fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    assert ema.updates == 6


def test_another_set_of_weights_starts_anew(model, data, trainer, tmp_path):
    ema = EMA(decay=0.5)
    ema.load_state_dict({"shadow": {"old": torch.zeros(1)}, "updates": 9, "last_step": 9})
    trainer(ema, max_steps=2).fit(model, datamodule=data)
    assert set(ema.shadow) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_frozen_networks_and_buffers_are_left_out(two_stage, data, trainer):
    ema = EMA()
    trainer(ema).fit(two_stage, datamodule=data)
    assert set(ema.shadow) == {n for n, _ in two_stage.named_parameters() if n.startswith("denoiser.")}
    assert not any("running" in name for name in ema.shadow)


def test_an_exception_in_validation_brings_the_raw_weights_back(model, data, trainer):
    ema, recorder = EMA(decay=0.5), Recorder()
    model.validation_step = lambda *a: (_ for _ in ()).throw(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        trainer(recorder, ema, max_steps=6).fit(model, datamodule=data)
    assert equal(Recorder.copy(model), recorder.steps[-1])


def test_averaged_weights_in_a_block(model, data, trainer):
    ema, recorder = EMA(decay=0.5), Recorder()
    made = trainer(recorder, ema)
    made.fit(model, datamodule=data)
    with averaged_weights(made, model):
        assert close(Recorder.copy(model), ema.shadow)
        with averaged_weights(made, model):  # within another: nothing changes
            assert close(Recorder.copy(model), ema.shadow)
        assert close(Recorder.copy(model), ema.shadow)
    assert equal(Recorder.copy(model), recorder.steps[-1])
    with averaged_weights(trainer(), model):
        assert equal(Recorder.copy(model), recorder.steps[-1])


def test_the_average_is_single_precision_in_bf16_runs(model, data, trainer):
    ema = EMA()
    trainer(ema, precision="bf16-true").fit(model, datamodule=data)
    assert {value.dtype for value in ema.shadow.values()} == {torch.float32}
