"""How far a training is: a bar in a terminal, a line per interval where the output is no terminal (a log file, CI)."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class _Pace:
    """Clips per second, and the seconds that are left, from the steps since the start of this process."""

    def __init__(self) -> None:
        self._start, self._first_step, self._first_clips = time.monotonic(), 0, 0

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Starts the clock."""
        self._start, self._first_step = time.monotonic(), trainer.global_step
        self._first_clips = int(getattr(module, "clips_seen", 0))

    @property
    def seconds(self) -> float:
        """Time since `begin`."""
        return time.monotonic() - self._start

    def facts(self, trainer: Trainer, module: LightningModule) -> dict[str, str]:
        """`clips/s` and, where the end is known, `left`; both over everything that takes time."""
        seconds, done = max(self.seconds, 1e-9), trainer.global_step - self._first_step
        clips = int(getattr(module, "clips_seen", 0)) - self._first_clips
        facts = {"clips/s": f"{clips / seconds:.1f}"}
        total = trainer.estimated_stepping_batches
        if done and math.isfinite(total):
            facts["left"] = _span((int(total) - trainer.global_step) * seconds / done)
        return facts


def _span(seconds: float) -> str:
    """`48 s`, `12 min`, `5 h 10 min`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _losses(trainer: Trainer) -> dict[str, str]:
    return {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items() if k in ("train/loss", "val/loss")}


class TerminalProgress(TQDMProgressBar):
    """The bar of an epoch, with the losses, clips/s and the time left of the whole training.

    Args:
        every_n_seconds: How often the numbers beside the bar are renewed: to show a loss, the host waits for the GPU.
    """

    def __init__(self, every_n_seconds: float = 1.0) -> None:
        super().__init__()
        self.every_n_seconds = every_n_seconds
        self._pace = _Pace()
        self._shown: dict[str, int | str | float | dict[str, float]] = {}
        self._renewed = -math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().on_train_start(trainer, pl_module)
        self._pace.begin(trainer, pl_module)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands beside the bar."""
        now = time.monotonic()
        if now - self._renewed >= self.every_n_seconds:
            self._renewed = now
            self._shown = {**_losses(trainer), **self._pace.facts(trainer, pl_module)}
        return self._shown


class LineProgress(Callback):
    """Prints step, loss, clips/s and the time left, once per interval and at the end.

    Args:
        every_n_seconds: Seconds between two lines.
    """

    def __init__(self, every_n_seconds: float = 15.0) -> None:
        self.every_n_seconds = every_n_seconds
        self._pace = _Pace()
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._pace.begin(trainer, pl_module)
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints where the interval is over."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self._last >= self.every_n_seconds:
            self._last = now
            self._print(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the last line."""
        if trainer.is_global_zero:
            stage = getattr(pl_module, "stage_name", None) or "fit"
            print(f"[{stage}] done: step {trainer.global_step} after {self._pace.seconds:.0f} s", flush=True)

    def _print(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        facts = self._pace.facts(trainer, pl_module)
        parts = [f"step {trainer.global_step}" + (f"/{int(total)}" if math.isfinite(total) else "")]
        parts += [f"{name} {value}" for name, value in _losses(trainer).items()]
        parts.append(f"{facts['clips/s']} clips/s")
        parts += [f"{facts['left']} left"] if "left" in facts else []
        print(f"[{getattr(pl_module, 'stage_name', None) or 'fit'}] " + "  ".join(parts), flush=True)
