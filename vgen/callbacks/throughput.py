"""How fast a run goes and what it uses."""

import resource
import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from vgen.callbacks.clock import Clock
from vgen.callbacks.flops import peak_flops, step_flops


class Throughput(Callback):
    """Logs clips seen, clips/s, the part of the time spent waiting for data, memory, and the use of the device.

    The numbers are taken over the steps between two rows of the log (`trainer.log_every_n_steps`), without a
    synchronisation of the device. Validations, pictures and checkpoints are no part of them. They stand under `perf/`:

    * `clips_per_s`, over all ranks, and `step_ms`, waiting for data included; `data_fraction` of it was waiting;
    * `memory_gb`: peak on the GPU, or of this process where there is none; `host_memory_gb` beside a GPU's;
    * `gflops_per_s` that this rank has reached, and `flop_utilisation`, its share of the device's dense peak where that
      is known. The operations of a step are counted once, at the first batch.

    Needs `Trainer(profiler=Clock())`, which `vgen fit` sets unless a recipe names a profiler; without it, there is
    no timing.
    """

    def __init__(self) -> None:
        self._clips = self._steps = 0
        self._before = {"data": 0.0, "step": 0.0}
        self._flops_per_clip: float | None = None
        self._peak: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to count."""
        self._clips, self._steps = int(getattr(pl_module, "clips_seen", 0)), trainer.global_step
        self._peak = peak_flops(pl_module.device, str(trainer.precision))
        clock = trainer.profiler  # type: ignore[attr-defined]
        if isinstance(clock, Clock):
            self._before = dict(clock.seconds)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Counts the operations of a step, once."""
        # A pass beside the training would leave sharded networks in between two of their states.
        whole = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        if self._flops_per_clip is None and whole and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            flops = step_flops(pl_module, batch, trainer.precision_plugin.train_step_context())
            self._flops_per_clip = (flops or 0) / len(batch["video"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs once in `log_every_n_steps` steps."""
        clips, step = int(getattr(pl_module, "clips_seen", 0)), trainer.global_step
        pl_module.log("clips", float(clips), batch_size=1)
        if step == self._steps or not is_logged(trainer, step):
            return
        values = {"perf/memory_gb": _peak_memory(pl_module.device) / 2**30}
        if pl_module.device.type == "cuda":
            values["perf/host_memory_gb"] = _peak_memory(torch.device("cpu")) / 2**30
        clock = trainer.profiler  # type: ignore[attr-defined]
        if isinstance(clock, Clock):
            spent = {part: seconds - self._before[part] for part, seconds in clock.seconds.items()}
            self._before = dict(clock.seconds)
            values |= self._speed(clips - self._clips, step - self._steps, spent, trainer.world_size)
        pl_module.log_dict(values, batch_size=1)
        self._clips, self._steps = clips, step

    def _speed(self, clips: int, steps: int, spent: dict[str, float], world_size: int) -> dict[str, float]:
        seconds = max(spent["data"] + spent["step"], 1e-9)
        values = {
            "perf/clips_per_s": clips / seconds,
            "perf/step_ms": 1000 * seconds / steps,
            "perf/data_fraction": spent["data"] / seconds,
        }
        if self._flops_per_clip:
            reached = self._flops_per_clip * clips / world_size / seconds
            values["perf/gflops_per_s"] = reached / 1e9
            if self._peak is not None:
                values["perf/flop_utilisation"] = reached / self._peak
        return values


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether the loggers get a row after this many steps."""
    every = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return every > 0 and step % every == 0


def _peak_memory(device: torch.device) -> float:
    """Peak bytes on the accelerator, or of the process where there is none."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
