"""Exponential moving average of the trainable weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vgen.callbacks.non_finite import step_was_skipped
from vgen.training.gan import AdversarialModule
from vgen.training.sharding import gather, local, shard_like

_RISE = 0.05  # EDM's ramp: the half-life as a share of the clips seen


class EMA(Callback):
    """Keeps an average of the trainable parameters and puts it in place for validation, test and prediction.

    The module's own state dict, and so the checkpoint's, holds the raw weights; the average is stored beside them.
    Frozen networks and discriminators are neither copied nor stored, and buffers (BatchNorm statistics, codebooks) are
    the live ones.
    It counts optimiser steps, also under gradient accumulation and with several optimisers.

    Args:
        decay: Weight of the old average at each step.
        warmup: Use min(decay, (1 + n) / (10 + n)) at step n, as most published codes do.
        every_n_steps: Update once in that many optimiser steps.
        warmup_from: The n of the first update: 0, or 1 as in the codes of score_sde, latent diffusion and PVDM.
        half_life: Clips after which a weight's share in the average has halved, whatever the batch; then `decay` is not
            looked at, and the warm-up is EDM's: at most a twentieth of the clips seen so far. EDM: 500,000.
    """

    def __init__(
        self,
        decay: float = 0.9999,
        warmup: bool = True,
        every_n_steps: int = 1,
        warmup_from: Literal[0, 1] = 0,
        half_life: int | None = None,
    ) -> None:
        self.decay, self.warmup, self.every_n_steps, self.warmup_from = decay, warmup, every_n_steps, warmup_from
        self.half_life = half_life
        self.shadow: dict[str, Tensor] = {}
        self.updates = 0
        self.clips = 0  # seen at the last update
        self._last_step = 0  # no update before the first step, also with several batches to a step
        self._raw: list[Tensor] | None = None

    @staticmethod
    def _parameters(module: LightningModule) -> dict[str, Tensor]:
        judges = set()
        if isinstance(module, AdversarialModule):  # nothing is generated with these
            judges = {p for network in module.discriminators.values() for p in network.parameters()}
        return {name: p for name, p in module.named_parameters() if p.requires_grad and p not in judges}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average from the current weights, or moves a restored one to the device."""
        self.start(pl_module)

    def start(self, pl_module: LightningModule) -> None:
        """See `on_fit_start`."""
        parameters = self._parameters(pl_module)
        if self.shadow and self.shadow.keys() != parameters.keys():
            self.shadow, self.updates = {}, 0  # another set of trainable weights: start anew
        for name, p in parameters.items():
            self.shadow[name] = self.shadow.get(name, p).detach().to(p.device, torch.float32, copy=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes this rank's share of a restored average, where the weights are spread over ranks."""
        for name, p in self._parameters(pl_module).items():
            self.shadow[name] = shard_like(self.shadow[name].to(p.device), p)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates after an optimiser step that was not skipped."""
        step = trainer.global_step
        if step == self._last_step or step % self.every_n_steps:
            return
        self._last_step = step
        if not step_was_skipped(trainer):
            self.update(pl_module)

    def update(self, pl_module: LightningModule) -> None:
        """Moves the average towards the weights, as after a step."""
        decay = self._next_decay(pl_module)
        self.updates += 1
        live = self._parameters(pl_module)
        averages = [local(average) for average in self.shadow.values()]
        weights = [local(live[name].detach()).float() for name in self.shadow]
        torch._foreach_lerp_(averages, weights, weight=1 - decay)

    def _next_decay(self, pl_module: LightningModule) -> float:
        if self.half_life is None:
            n = self.updates + self.warmup_from
            return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        before, self.clips = self.clips, int(pl_module.clips_seen)  # type: ignore[arg-type]
        half_life = min(self.half_life, _RISE * before) if self.warmup else self.half_life
        return float(0.5 ** ((self.clips - before) / half_life)) if half_life else 0.0

    @contextmanager
    def averaged(self, pl_module: LightningModule) -> Iterator[None]:
        """Puts the average in place of the weights for the time of the block."""
        if self._raw is not None:  # it is in place already, and stays there behind the block
            yield
            return
        self._swap_in(pl_module)
        try:
            yield
        finally:
            self._swap_out(pl_module)

    def _swap_in(self, pl_module: LightningModule) -> None:
        if self._raw is not None or not self.shadow:
            return
        live = self._parameters(pl_module)
        self._raw = [live[name].detach().clone() for name in self.shadow]
        with torch.no_grad():
            for name, average in self.shadow.items():
                live[name].copy_(average)

    def _swap_out(self, pl_module: LightningModule) -> None:
        if self._raw is None:
            return
        live = self._parameters(pl_module)
        with torch.no_grad():
            for name, raw in zip(self.shadow, self._raw, strict=True):
                live[name].copy_(raw)
        self._raw = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Averaged weights in."""
        self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raw weights back."""
        self._swap_out(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Averaged weights in."""
        self._swap_in(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raw weights back."""
        self._swap_out(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Averaged weights in."""
        self._swap_in(pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raw weights back."""
        self._swap_out(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Raw weights back, so that a checkpoint written on the way out is right."""
        self._swap_out(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The average and its counters."""
        counters = {"updates": self.updates, "last_step": self._last_step, "clips": self.clips}
        return {"shadow": gather(self.shadow), **counters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the average and its counters."""
        self.shadow = dict(state_dict["shadow"])
        self.updates, self._last_step = state_dict["updates"], state_dict["last_step"]
        self.clips = state_dict.get("clips", 0)


def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Any:
    """Context with the averaged weights in place, where the trainer has an EMA callback; else an empty context."""
    from contextlib import nullcontext

    ema = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
    return ema.averaged(pl_module) if ema is not None else nullcontext()
