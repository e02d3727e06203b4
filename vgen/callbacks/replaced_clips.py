"""Counts the clips that could not be read and were replaced by others."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class ReplacedClips(Callback):
    """Logs `data/replaced` once there is something to count, and says at the end how many clips were replaced.

    The warnings of the data set name each file once. The number in the log is the first rank's, since its process
    began; the line at the end is about all ranks.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the count."""
        if count := self._count(trainer):
            pl_module.log("data/replaced", float(count), batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the sum over all ranks."""
        count = torch.tensor(float(self._count(trainer)), device=pl_module.device)
        total = int(trainer.strategy.reduce(count, reduce_op="sum"))
        if total and trainer.is_global_zero:
            stage = getattr(pl_module, "stage_name", None) or "fit"
            print(
                f"[{stage}] {total} clips could not be read and were replaced by others; `vgen data check` names them",
                flush=True,
            )

    @staticmethod
    def _count(trainer: Trainer) -> int:
        return int(getattr(trainer.datamodule, "replaced", 0))  # type: ignore[attr-defined]
