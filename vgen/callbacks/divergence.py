"""Ends a training that falls apart, while the best checkpoint is still there."""

import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from vgen.errors import UserError, did_you_mean


class DivergenceGuard(Callback):
    """Stops when a validated metric is worse than its best value by more than a margin, or not finite.

    For adversarial stages, which may go well for thousands of steps and then diverge within a few: hand over
    `stage://<stage>/best`, with a `Checkpoint` that monitors a metric. A plateau is for Lightning's `EarlyStopping`.

    Args:
        monitor: Metric of a validation.
        margin: How much worse than the best it may be, in its own unit.
        mode: Whether the metric is to be small or large.
    """

    def __init__(self, monitor: str, margin: float, mode: Literal["min", "max"] = "min") -> None:
        self.monitor, self.margin, self.mode = monitor, margin, mode
        self.best: float | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the metric; all ranks stop together."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor not in trainer.callback_metrics:
            known = sorted(trainer.callback_metrics)
            hint = did_you_mean(self.monitor, known) or f"there: {', '.join(known)}"
            raise UserError(f"no metric {self.monitor!r} to monitor", "trainer.callbacks: DivergenceGuard", hint)
        value = float(trainer.callback_metrics[self.monitor])
        better = min if self.mode == "min" else max
        best = value if self.best is None else better(value, self.best)
        diverged = not math.isfinite(value) or abs(value - best) > self.margin
        if math.isfinite(value):
            self.best = best
        if trainer.strategy.reduce_boolean_decision(diverged, all=False):
            trainer.should_stop = True
            before = "" if self.best is None else f", {self.best:.4g} was the best"
            step = trainer.global_step
            rank_zero_warn(f"{self.monitor} is {value:.4g}{before}: the training diverges and ends at step {step}")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it."""
        self.best = state_dict["best"]
