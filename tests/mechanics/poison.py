"""The toy family with clips that make the loss or the gradient infinite, and a callback that counts what changes."""

from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from tests.mechanics.toy import ToyAutoencoder, ToyNetwork
from vgen.callbacks import EMA
from vgen.video import ClipSpec


class PoisonedAutoencoder(ToyAutoencoder):
    """An auto-encoder that cannot stand one of the clips.

    Args:
        clip_spec: The clips.
        network: Encoder and decoder.
        poison: Path of the clip; "all" for every one, "" for none.
        kind: What is not finite: the input, and with it all that comes of it; the loss alone; or the gradient alone.
        noise: See `ToyAutoencoder`.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: ToyNetwork,
        poison: str = "clip6",
        kind: Literal["input", "loss", "gradient"] = "input",
        noise: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, network, noise, optimizer, lr_scheduler, lr_interval)
        self.poison, self.kind = poison, kind

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        poisoned = self.training and (self.poison == "all" or self.poison in batch["path"])
        if poisoned and self.kind == "input":
            batch = {**batch, "video": batch["video"] * float("nan")}
        terms = super().loss(batch)
        if poisoned and self.kind == "loss":
            return {**terms, "loss": terms["loss"] + float("inf")}
        if poisoned and self.kind == "gradient":
            bias = self.network.decoder.bias
            return {**terms, "loss": terms["loss"] + ((bias - bias.detach()).abs().sum()).sqrt()}
        return terms


class Recorder(Callback):
    """Keeps the weights, buffers, optimiser state and average behind every batch, with the batch's clips."""

    seen: list[dict[str, Any]]

    def __init__(self) -> None:
        self.seen = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        ema = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)
        state = trainer.optimizers[0].state_dict()["state"]
        self.seen.append(
            {
                "clips": list(batch["path"]),
                "step": trainer.global_step,
                "model": {k: v.clone() for k, v in pl_module.state_dict().items()},
                "optimizer": {str(i): {k: v.clone() for k, v in s.items()} for i, s in state.items()},
                "average": {} if ema is None else {k: v.clone() for k, v in ema.shadow.items()},
                "updates": 0 if ema is None else ema.updates,
            }
        )
