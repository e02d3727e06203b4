"""Warns of an adversarial training that no longer teaches its generator anything."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

_WINS = "train/d_wins_"


@dataclass
class _Streak:
    """Since which step something has been wrong, and whether that was said.

    Args:
        since: The first step of it; None: it is not wrong.
        said: Whether a warning was given.
    """

    since: int | None = None
    said: bool = False

    def seen(self, wrong: bool, step: int) -> None:
        """Notes how it is at a step."""
        if not wrong:
            self.since, self.said = None, False
        elif self.since is None:
            self.since = step


class CollapseAlarm(Callback):
    """Says in one line, once for each time, that generated clips have become alike or that a discriminator only wins.

    It looks at numbers that are logged anyway: at each validation at `val/diversity` (see `ClipStatistics`), and when
    the log is written at `train/d_wins_<discriminator>`, how often it finds the real one of a real and a generated
    sample. It reads nothing else from the device, and stops nothing: `DivergenceGuard` does.

    Args:
        least_diversity: Below this share of the real clips' diversity, generated ones are too much alike: once they
            have been above it, or have had `for_steps` steps to get there.
        most_wins: At this share and above, a discriminator wins; None: not watched. A critic of `wgan` may always win.
        for_steps: So long a discriminator must win.
    """

    def __init__(self, least_diversity: float = 0.3, most_wins: float | None = 0.99, for_steps: int = 1000) -> None:
        self.least_diversity, self.most_wins, self.for_steps = least_diversity, most_wins, for_steps
        self._streaks: dict[str, _Streak] = {}
        self._was_diverse = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the discriminators, when their numbers are read for the log."""
        step = trainer.global_step
        if self.most_wins is None or step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        for key, value in trainer.callback_metrics.items():
            if key.startswith(_WINS):
                name = key.removeprefix(_WINS)
                streak = self._streaks.setdefault(name, _Streak())
                streak.seen(float(value) >= self.most_wins, step)
                if streak.since is not None and step - streak.since >= self.for_steps and not streak.said:
                    streak.said = True
                    rank_zero_warn(
                        f"step {step}: the {name} discriminator has won since step {streak.since}, and the generator "
                        "learns little from it: lower discriminator_optimizer's rate, add a penalty "
                        "(vgen.losses.GradientPenalty), or go back to best.ckpt"
                    )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the diversity of generated clips."""
        value = trainer.callback_metrics.get("val/diversity")
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING or value is None:
            return
        streak, step = self._streaks.setdefault("diversity", _Streak()), trainer.global_step
        alike = float(value) < self.least_diversity
        self._was_diverse |= not alike
        streak.seen(alike and (self._was_diverse or step >= self.for_steps), step)
        if streak.since is not None and not streak.said:
            streak.said = True
            rank_zero_warn(
                f"step {step}: generated clips have {float(value):.2f} of the diversity of real ones, the generator "
                "collapses: go back to best.ckpt with a lower optimizer's rate, larger batches, or a penalty"
            )

    def state_dict(self) -> dict[str, Any]:
        """What has been seen."""
        streaks = {name: [streak.since, streak.said] for name, streak in self._streaks.items()}
        return {"streaks": streaks, "was_diverse": self._was_diverse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores it."""
        self._streaks = {name: _Streak(*values) for name, values in state_dict["streaks"].items()}
        self._was_diverse = state_dict["was_diverse"]
