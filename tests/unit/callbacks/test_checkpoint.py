"""When checkpoints are written, which is the best, and that no failing write costs the one before."""

import errno
import os

import pytest
import torch
from lightning.pytorch import Callback

from vgen.callbacks import AtomicCheckpointIO, Checkpoint
from vgen.callbacks.checkpoint import validation_follows
from vgen.errors import UserError


class Scores(Callback):
    """Logs `val/score` from a list, one number per validation; keeps the steps of all writes."""

    def __init__(self, scores=()):
        self.scores, self.writes = list(scores), []

    def on_validation_epoch_end(self, trainer, module):
        if self.scores:
            module.log("val/score", self.scores.pop(0))

    def on_save_checkpoint(self, trainer, module, checkpoint):
        self.writes.append(trainer.global_step)


@pytest.fixture
def run(model, data, trainer, tmp_path):
    """Trains with a Checkpoint; returns the steps at which it wrote and a reader of the files."""

    def go(checkpoint, scores=(), ckpt_path=None, **options):
        recorder = Scores(scores)
        made = trainer(recorder, checkpoint, enable_checkpointing=True, **options)
        made.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return recorder.writes

    return go


def step(tmp_path, name="last"):
    return torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_every_n_steps_and_the_last(run, tmp_path):
    assert run(Checkpoint(every_n_steps=3), max_steps=7, limit_val_batches=0) == [3, 6, 7]
    assert step(tmp_path) == 7 and files(tmp_path) == ["last.ckpt"]


def test_an_interval_beyond_the_end(run, tmp_path):
    assert run(Checkpoint(every_n_steps=1000), max_steps=3, limit_val_batches=0) == [3]


def test_every_epoch_by_default(run, tmp_path):
    assert run(Checkpoint(), max_steps=12, limit_val_batches=0) == [5, 10, 12]


def test_training_that_is_limited_by_epochs(run, tmp_path):
    assert run(Checkpoint(every_n_steps=4), max_steps=-1, max_epochs=2, limit_val_batches=0) == [4, 8, 10]


def test_by_time(run, tmp_path):
    assert run(Checkpoint(every_n_minutes=1e-9), max_steps=3, limit_val_batches=0) == [1, 2, 3]
    assert run(Checkpoint(every_n_minutes=60), max_steps=3, limit_val_batches=0) == [3]


def test_steps_and_not_batches_are_counted(run, tmp_path):
    options = {"max_steps": 4, "accumulate_grad_batches": 2, "limit_val_batches": 0}
    assert run(Checkpoint(every_n_steps=2), **options) == [2, 4]


def test_a_validation_behind_the_step_is_part_of_its_checkpoint(run, tmp_path):
    assert run(Checkpoint(every_n_steps=2), max_steps=4, val_check_interval=2) == [2, 2, 4]  # the last validation first


def test_last_does_not_wait_for_the_first_validation(run, tmp_path):
    run(Checkpoint(every_n_steps=1, monitor="val/score"), scores=[1.0], max_steps=2, val_check_interval=5)
    assert files(tmp_path) == ["last.ckpt"] and step(tmp_path) == 2


@pytest.mark.parametrize("mode, best", [("min", 4), ("max", 2)])
def test_best_is_of_the_step_that_was_measured(run, tmp_path, mode, best):
    checkpoint = Checkpoint(every_n_steps=3, monitor="val/score", mode=mode)
    run(checkpoint, scores=[5.0, 1.0, 3.0], max_steps=7, val_check_interval=2, check_val_every_n_epoch=None)
    assert step(tmp_path, "best") == best and step(tmp_path) == 7
    assert checkpoint.best == (1.0 if mode == "min" else 5.0)


def test_nan_is_never_the_best(run, tmp_path):
    checkpoint = Checkpoint(monitor="val/score")
    scores = [float("nan"), 2.0, float("nan")]
    run(checkpoint, scores=scores, max_steps=6, val_check_interval=2, check_val_every_n_epoch=None)
    assert step(tmp_path, "best") == 4 and checkpoint.best == 2.0


def test_the_best_is_remembered_over_a_resume(run, tmp_path):
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None}
    run(Checkpoint(monitor="val/score"), scores=[1.0, 2.0], max_steps=4, **options)
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = Checkpoint(monitor="val/score")
    run(checkpoint, scores=[1.5], max_steps=6, ckpt_path=last, **options)
    assert checkpoint.best == 1.0 and step(tmp_path, "best") == 2 and step(tmp_path) == 6


def test_a_second_run_leaves_no_second_name_and_sets_the_firsts_best_aside(run, tmp_path):
    for steps in (2, 4):
        run(Checkpoint(every_n_steps=1, monitor="val/score"), scores=[1.0], max_steps=steps, val_check_interval=steps)
    assert files(tmp_path) == ["best.ckpt", "best.old.ckpt", "last.ckpt"]
    assert [step(tmp_path, name) for name in ("best", "best.old", "last")] == [4, 2, 4]


def test_the_best_value_of_another_metric_counts_for_nothing():
    state = Checkpoint(monitor="val/loss").state_dict() | {"best": 0.1}
    for metric, mode, best in (("val/loss", "min", 0.1), ("val/loss", "max", None), ("val/psnr", "min", None)):
        checkpoint = Checkpoint(monitor=metric, mode=mode)
        checkpoint.load_state_dict(state)
        assert checkpoint.best == best


def test_an_unknown_metric_is_named(run):
    with pytest.raises(UserError, match="no metric 'val/scor'") as error:
        run(Checkpoint(monitor="val/scor"), scores=[1.0], max_steps=2, val_check_interval=2)
    assert "did you mean 'val/score'" in str(error.value)


class Foresight(Callback):
    """What `validation_follows` says behind each batch, and what then happens."""

    def __init__(self):
        self.said, self.happened = [], []

    def on_train_batch_end(self, trainer, *arguments):
        self.said.append(validation_follows(trainer))
        self.happened.append(False)

    def on_validation_start(self, trainer, module):
        self.happened[-1] = True


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limit_val_batches": 0},
        {"val_check_interval": 2},
        {"val_check_interval": 0.4},
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": None, "val_check_interval": 3},
        {"limit_train_batches": 3},
        {"accumulate_grad_batches": 2, "max_steps": 5},
    ],
    ids=str,
)
def test_validations_are_foreseen(model, data, trainer, options):
    foresight = Foresight()
    trainer(foresight, **({"max_steps": 11} | options)).fit(model, datamodule=data)
    assert foresight.said == foresight.happened and any(foresight.said) == (options != {"limit_val_batches": 0})


def test_trial_runs_write_nothing(run, tmp_path):
    assert run(Checkpoint(every_n_steps=1, monitor="val/loss"), fast_dev_run=2) == []
    assert not (tmp_path / "checkpoints").exists()


def test_the_state_is_plain_data(run):
    checkpoint = Checkpoint(monitor="val/loss")
    run(checkpoint, max_steps=2, val_check_interval=2)
    assert set(checkpoint.state_dict()) == {"best", "monitor"} and isinstance(checkpoint.best, float)


class Unwritable:
    """Fails while it is pickled."""

    def __reduce__(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def full_disk(*args, **kwargs):
    raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/0")


@pytest.mark.parametrize("failure", ["while pickling", "in torch's writer", "in fsync", "in rename"])
def test_a_failing_write_leaves_the_file_before(tmp_path, monkeypatch, failure):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    content = {"step": 2, "x": torch.zeros(1000)}

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failure == "while pickling":
        content["broken"] = Unwritable()
    elif failure == "in torch's writer":
        monkeypatch.setattr(torch, "save", full_disk)
    else:
        monkeypatch.setattr(os, {"in fsync": "fsync", "in rename": "replace"}[failure], fail)
    with pytest.raises(UserError, match="could not be written") as error:
        io.save_checkpoint(content, path)
    assert error.value.where == str(path) and "--resume" in (error.value.hint or "")
    monkeypatch.undo()
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_equal_contents_give_equal_files(tmp_path):
    for name in ("a.ckpt", "b.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"x": torch.arange(10.0)}, tmp_path / name)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "truncated"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"x": torch.arange(1000.0)}, path)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(UserError, match="cannot be read") as error:
        AtomicCheckpointIO().load_checkpoint(path, weights_only=True)
    assert error.value.where == str(path)
