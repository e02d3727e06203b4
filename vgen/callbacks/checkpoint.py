"""When and how checkpoints are written: always `last.ckpt`, optionally `best.ckpt`, never half a file."""

import os
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointBase
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from vgen.errors import UserError, did_you_mean
from vgen.files import WriteError, disk_error, write_atomic

Next = Literal["batch", "validation", "epoch"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, flushes it and renames it: a kill or a full disk leaves the previous checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes one checkpoint."""
        try:
            write_atomic(path, lambda temporary: _save(checkpoint, temporary))
        except (OSError, RuntimeError, WriteError) as error:
            # torch's zip writer reports a full disk as a RuntimeError.
            raise UserError(
                f"the checkpoint could not be written: {disk_error(error) or error}",
                str(path),
                "free some space and run the same command with --resume; the previous checkpoint is untouched",
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads one checkpoint.

        Raises:
            UserError: When it is damaged, or holds objects that could run code.
        """
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except Exception as error:  # torch raises half a dozen types for a damaged file
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            hint = "put a copy in its place, or delete it: the stage then starts anew under --resume"
            raise UserError(f"the checkpoint cannot be read: {reason}", str(path), hint) from error


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    # To an open file, because torch writes the name of a path into the archive: equal contents get equal hashes.
    with open(path, "wb") as file:
        torch.save(checkpoint, file)


class Checkpoint(CheckpointBase):
    """Keeps `last.ckpt`, and `best.ckpt` where a metric is monitored, in `<run>/<stage>/checkpoints`.

    `last.ckpt` is written at the given interval and at the last step, so that a longer training can go on from there
    as if it had never stopped. Where a validation within an epoch follows the step that was saved, it is written again
    afterwards: a resumed run does not repeat the validation. From the file before, it does. `best.ckpt` is written
    right after the validation that was the best.

    Args:
        every_n_steps: Save once in that many optimiser steps (of the generator).
        every_n_minutes: Save once in that many minutes, also or instead. With neither, once per epoch.
        monitor: Metric that decides which checkpoint is `best.ckpt`; None keeps none.
        mode: Whether the metric is to be small or large.
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.monitor, self.mode = monitor, mode
        self.best: float | None = None
        self._saved_step = 0
        self._saved_time = time.monotonic()
        self._due = False  # once the validation or the end of the epoch has passed
        self._next: Next = "batch"  # what comes behind the state that is being written
        self._best_is_ours = False  # whether a best.ckpt that is there belongs to what is monitored now

    # Lightning's own ModelCheckpoint is not used: with `every_n_train_steps` it does not save the last step, takes the
    # metric of an earlier validation for the weights at hand, waits with `last.ckpt` for the first validation, and
    # keeps absolute paths in its state.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; what a run goes on from is saved. Sets aside a `best.ckpt` that something else has left."""
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        best = self._path(trainer, "best")
        if trainer.is_global_zero and best.is_file() and not self._best_is_ours and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            old = best.with_name("best.old.ckpt")
            os.replace(best, old)
            rank_zero_info(f"{best} is not of this training, or of what it monitors now; it is {old.name} from now on")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves at the interval and at the last step."""
        step = trainer.global_step
        if step == self._saved_step:  # also between the batches of one step, under gradient accumulation
            return
        due = step == trainer.max_steps or (self.every_n_steps is not None and step % self.every_n_steps == 0)
        due = due or (trainer.is_last_batch and self.every_n_steps is None and self.every_n_minutes is None)
        if self.every_n_minutes is not None:
            waited = time.monotonic() - self._saved_time >= 60 * self.every_n_minutes
            due = due or trainer.strategy.broadcast(waited)  # clocks of ranks differ
        # At the last batch of an epoch, the epoch's end is waited for where epochs limit the training: Lightning (2.6)
        # miscounts them after a resume from a checkpoint in between, and trains for too long. Where steps are the
        # limit, it is the other way round; but behind the last step no resumed run would validate any more.
        last_validation = step == trainer.max_steps and validation_follows(trainer)
        self._due = due and (last_validation or (trainer.is_last_batch and trainer.max_steps == -1))
        if due and not self._due:
            self._save_last(trainer, what_follows(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves `best.ckpt` where the validation was the best, and `last.ckpt` where this step was saved before."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor is not None:
            self._save_best(trainer)
        if self._saved_step == trainer.global_step > 0 or (self._due and trainer.global_step == trainer.max_steps):
            self._due = False
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what has waited for the end of the epoch, and always at the end of the last one."""
        # Here and not behind the loop, whose end counts as part of what is done: more epochs can follow exactly.
        if self._due or trainer.current_epoch + 1 == trainer.max_epochs:
            self.save_at_epoch_end(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves where something else has ended the training."""
        if self._saved_step != trainer.global_step:
            self._save_last(trainer)

    def save_now(self, trainer: Trainer) -> bool:
        """Saves the step that has just ended, also from within a validation; False where the epoch's end must come.

        Nothing but the weights must have changed since the step, and no averaged ones must be in their place.
        """
        following: Next = "validation" if trainer.validating else what_follows(trainer)
        if following == "epoch" and trainer.max_steps == -1:
            return False
        if self._saved_step != trainer.global_step:
            self._save_last(trainer, following)
        return True

    def save_at_epoch_end(self, trainer: Trainer) -> None:
        """Saves the epoch that has just ended, where that has not happened."""
        self._due = False
        if self._saved_step != trainer.global_step:
            self._save_last(trainer)

    def _save_best(self, trainer: Trainer) -> None:
        if self.monitor not in trainer.callback_metrics:
            known = sorted(trainer.callback_metrics)
            hint = did_you_mean(str(self.monitor), known) or f"there: {', '.join(known)}"
            raise UserError(f"no metric {self.monitor!r} to monitor", "trainer.callbacks: Checkpoint.monitor", hint)
        value = float(trainer.callback_metrics[str(self.monitor)])
        better = self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        if trainer.strategy.reduce_boolean_decision(better and value == value):  # a NaN is never the best
            self.best = value
            self._save(trainer, "best")

    def _save_last(self, trainer: Trainer, following: Next = "batch") -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        self._next = following
        self._save(trainer, "last")
        self._next = "batch"

    def _save(self, trainer: Trainer, name: str) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self._path(trainer, name), weights_only=False)

    @staticmethod
    def _path(trainer: Trainer, name: str) -> Path:
        return Path(trainer.default_root_dir).absolute() / "checkpoints" / f"{name}.ckpt"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes the state of Lightning's loops so that it goes on with what is to come."""
        prepare_resume(checkpoint["loops"]["fit_loop"], self._next, trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and of what."""
        return {"best": self.best, "monitor": [self.monitor, self.mode]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them; the best value of another metric says nothing."""
        monitor = state_dict.get("monitor", [self.monitor, self.mode])  # not in files of vgen 0.1
        self._best_is_ours = self.monitor is not None and monitor == [self.monitor, self.mode]
        self.best = state_dict["best"] if self._best_is_ours else None


def what_follows(trainer: Trainer) -> Next:
    """What comes behind the training batch that has just ended."""
    if validation_follows(trainer):
        return "validation"
    return "epoch" if trainer.is_last_batch else "batch"


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation comes between the batch that has just ended and the next one.

    False under a validation interval in hours and minutes, whose clock a resumed run starts anew.
    """
    if not _validates_in(trainer, trainer.current_epoch) or trainer.val_check_batch is None:
        return False
    if trainer.val_check_batch == float("inf"):
        return trainer.is_last_batch
    over_epochs = trainer.check_val_every_n_epoch is None
    done = trainer.fit_loop.total_batch_idx if over_epochs else trainer.fit_loop.batch_idx
    return (done + 1) % trainer.val_check_batch == 0


def _validates_in(trainer: Trainer, epoch: int) -> bool:
    every = trainer.check_val_every_n_epoch
    return trainer.enable_validation and (every is None or (epoch + 1) % every == 0)


def prepare_resume(loops: dict[str, Any], following: Next, trainer: Trainer) -> None:
    """Changes a state of Lightning's loops (2.6) that is being saved so that a run goes on from it exactly.

    Left as it is at the end of a training batch, Lightning takes a validation that should follow for done, and when
    the next epoch should follow, it does not count its start.

    Args:
        loops: State of the fit loop and those within it.
        following: What is to come.
        trainer: The trainer.
    """
    validation = loops["epoch_loop.val_loop.batch_progress"]
    if following == "validation":
        # As in its first batch, from where Lightning begins it again.
        _complete(loops["epoch_loop.batch_progress"])
        validation["current"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        validation["is_last_batch"] = False
    elif following == "epoch" and trainer.max_steps != -1:
        _complete(loops["epoch_loop.batch_progress"])
        loops["epoch_loop.batch_progress"]["is_last_batch"] = False
        optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        batches, schedules = loops["epoch_loop.batch_progress"], loops["epoch_loop.scheduler_progress"]
        for progress in (batches, schedules, optimizer["step"], optimizer["zero_grad"]):
            progress["current"] = dict.fromkeys(progress["current"], 0)
        for count in ("total", "current"):
            epochs = loops["epoch_progress"][count]
            epochs["processed"] = epochs["completed"] = epochs["ready"]
        # Lightning takes a place before an epoch's first batch for one to validate at, and then counts the step itself.
        by_batch = trainer.check_val_every_n_epoch is not None and trainer.val_check_batch != float("inf")
        if not (by_batch and _validates_in(trainer, trainer.current_epoch + 1)):
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    # Of an epoch's earlier validations, nothing is read but whether all of them were finished.
    validation["total"] = dict(validation["current"])


def _complete(progress: dict[str, Any]) -> None:
    for count in ("total", "current"):
        progress[count]["completed"] = progress[count]["processed"]
