"""How fast a run goes and what it uses."""

import resource
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs clips seen, clips/s, the part of the time spent waiting for data, and peak memory.

    The numbers are taken over the steps between two rows of the log (`trainer.log_every_n_steps`), without a
    synchronisation of the device.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._waiting = 0.0
        self._clips = 0
        self._batch_end = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._since = self._batch_end = time.monotonic()
        self._clips, self._waiting = int(getattr(pl_module, "clips_seen", 0)), 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Adds the time between two batches."""
        self._waiting += time.monotonic() - self._batch_end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs once in `log_every_n_steps` steps."""
        now = self._batch_end = time.monotonic()
        clips = int(getattr(pl_module, "clips_seen", 0))
        pl_module.log("clips", float(clips), batch_size=1)
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        elapsed = max(now - self._since, 1e-9)
        values = {
            "perf/clips_per_s": (clips - self._clips) / elapsed,
            "perf/data_fraction": self._waiting / elapsed,
            "perf/memory_gb": _peak_memory(pl_module.device) / 2**30,
        }
        if clips > self._clips:
            pl_module.log_dict(values, batch_size=1)
        self._since, self._clips, self._waiting = now, clips, 0.0


def _peak_memory(device: torch.device) -> float:
    """Peak bytes on the accelerator, or of the process where there is none."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
