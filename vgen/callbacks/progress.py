"""One line per interval, where the output is no terminal (a log file, CI, a cluster)."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class LineProgress(Callback):
    """Prints step, loss, clips/s and the time left, once per interval and at the end.

    Args:
        every_n_seconds: Seconds between two lines.
    """

    def __init__(self, every_n_seconds: float = 15.0) -> None:
        self.every_n_seconds = every_n_seconds
        self._start = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints where the interval is over."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self._last >= self.every_n_seconds:
            self._last = now
            self._print(trainer, pl_module, now - self._start, len(batch["video"]) * trainer.world_size)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the last line."""
        if trainer.is_global_zero:
            elapsed = time.monotonic() - self._start
            stage = getattr(pl_module, "stage_name", None) or "fit"
            print(f"[{stage}] done: step {trainer.global_step} after {elapsed:.0f} s", flush=True)

    def _print(self, trainer: Trainer, pl_module: LightningModule, elapsed: float, batch_size: int) -> None:
        done = max(trainer.global_step - self._first_step, 1)
        total = trainer.estimated_stepping_batches
        rate = done / elapsed
        parts = [f"step {trainer.global_step}" + (f"/{int(total)}" if total != float("inf") else "")]
        parts += [f"{k} {float(v):.4g}" for k, v in trainer.callback_metrics.items() if k in ("train/loss", "val/loss")]
        parts.append(f"{rate * batch_size:.1f} clips/s")
        if total != float("inf"):
            parts.append(f"{(int(total) - trainer.global_step) / rate:.0f} s left")
        print(f"[{getattr(pl_module, 'stage_name', None) or 'fit'}] " + "  ".join(parts), flush=True)
