"""Where the time of a training goes: waiting for data, computing, validating, saving."""

import time

from lightning.pytorch.profilers import Profiler

_WATCHED = {
    "[_TrainingEpochLoop].train_dataloader_next": "data",
    "run_training_batch": "step",
}


class Clock(Profiler):
    """Adds up the seconds of the two parts of a training step, at the cost of two readings of the clock each.

    Lightning names what it does to its profiler; callbacks alone cannot tell waiting for a batch from a validation or
    a checkpoint between two batches. On a GPU the seconds are the host's: over many steps, it cannot run ahead.

    Attributes:
        seconds: Time so far by part: `data` (waiting for a batch), `step` (forward, backward, update).
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(_WATCHED.values(), 0.0)
        self._started: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        """Notes the time where the action is one of the parts."""
        if (part := _WATCHED.get(action_name)) is not None:
            self._started[part] = time.monotonic()

    def stop(self, action_name: str) -> None:
        """Adds the time since `start`."""
        part = _WATCHED.get(action_name)
        if part is not None and part in self._started:
            self.seconds[part] += time.monotonic() - self._started.pop(part)
