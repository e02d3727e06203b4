"""When and how checkpoints are written: always `last.ckpt`, optionally `best.ckpt`, never half a file."""

import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointBase
from lightning.pytorch.trainer.states import TrainerFn

from vgen.errors import UserError, did_you_mean
from vgen.files import write_atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, flushes it and renames it: a kill or a full disk leaves the previous checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes one checkpoint."""
        try:
            write_atomic(path, lambda temporary: _save(checkpoint, temporary))
        except (OSError, RuntimeError) as error:
            # torch's zip writer reports a full disk as a RuntimeError.
            raise UserError(
                f"the checkpoint could not be written: {error}",
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
    afterwards: a resumed run does not repeat the validation. `best.ckpt` is written right after the validation that
    was the best.

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
        self._saved_step = 0  # nothing to save before the first step
        self._saved_time = time.monotonic()
        self._due = False  # at the end of the epoch

    # Lightning's own ModelCheckpoint is not used: with `every_n_train_steps` it does not save the last step, takes the
    # metric of an earlier validation for the weights at hand, waits with `last.ckpt` for the first validation, and
    # keeps absolute paths in its state.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._saved_time = time.monotonic()

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
        # limit, it is the other way round.
        self._due = due and trainer.is_last_batch and trainer.max_steps == -1
        if due and not self._due:
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves `best.ckpt` where the validation was the best, and `last.ckpt` where this step was saved before."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor is not None:
            self._save_best(trainer)
        if self._saved_step == trainer.global_step > 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what has waited for the end of the epoch, and always at the end of the last one."""
        # Here and not behind the loop, whose end counts as part of what is done: more epochs can follow exactly.
        due = self._due or trainer.current_epoch + 1 == trainer.max_epochs
        self._due = False
        if due and self._saved_step != trainer.global_step:
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves where something else has ended the training."""
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

    def _save_last(self, trainer: Trainer) -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
        self._save(trainer, "last")

    def _save(self, trainer: Trainer, name: str) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = Path(trainer.default_root_dir).absolute() / "checkpoints" / f"{name}.ckpt"
            trainer.save_checkpoint(path, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and the step of `last.ckpt`."""
        return {"best": self.best, "saved_step": self._saved_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores both."""
        self.best, self._saved_step = state_dict["best"], state_dict["saved_step"]
