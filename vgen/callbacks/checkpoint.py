"""When and how checkpoints are written: always `last.ckpt`, optionally `best.ckpt`, never half a file."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from vgen.errors import UserError
from vgen.files import write_atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, flushes it and renames it: a kill or a full disk leaves the previous checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes one checkpoint."""
        try:
            write_atomic(path, lambda temporary: torch.save(checkpoint, temporary))
        except (OSError, RuntimeError) as error:
            # torch's zip writer reports a full disk as a RuntimeError.
            raise UserError(
                f"the checkpoint could not be written: {error}",
                str(path),
                "free some space and run the same command with --resume; the previous checkpoint is untouched",
            ) from error


class Checkpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, and `best.ckpt` where a metric is monitored, in `<run>/<stage>/checkpoints`.

    Args:
        every_n_steps: Save once in that many optimiser steps (of the generator).
        every_n_minutes: Save once in that many minutes, instead.
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
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1 if monitor else 0,
            save_last=True,
            every_n_train_steps=every_n_steps,
            train_time_interval=timedelta(minutes=every_n_minutes) if every_n_minutes else None,
            save_on_train_epoch_end=None,
            enable_version_counter=False,  # `last-v1.ckpt` beside `last.ckpt` is how a run resumes from another one
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes below the stage's folder, whatever loggers there are."""
        self.dirpath = str(Path(trainer.default_root_dir).absolute() / "checkpoints")
        super().setup(trainer, pl_module, stage)
