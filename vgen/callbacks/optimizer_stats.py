"""What the optimiser sees: gradient norms of every network, and learning rates."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vgen.callbacks.throughput import is_logged


class OptimizerStats(Callback):
    """Logs `grad_norm/<network>` and `lr`, once in `log_every_n_steps` steps.

    Norms are L2, over what each direct child of the module gets from this optimiser, before clipping and (with fp16)
    after unscaling; `grad_norm/all` is over all of them, where there are several. They stay on the device until the
    logger writes the row. With several optimisers, rates are `lr/<number>`.
    """

    def __init__(self) -> None:
        self._step = 1  # that the batch under way belongs to; several optimisers may move in it, one of which counts

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the step."""
        self._step = trainer.global_step + 1

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Computes the norms where this step's row is going to be written."""
        if not is_logged(trainer, self._step):
            return
        updated = {id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        norms = {}
        for name, child in pl_module.named_children():
            gradients = [p.grad for p in child.parameters() if id(p) in updated and p.grad is not None]
            if gradients:
                norms[name] = _norm(gradients)
        values = {f"grad_norm/{name}": norm for name, norm in norms.items()}
        if len(norms) > 1:
            values["grad_norm/all"] = torch.stack(list(norms.values())).norm()
        optimizers = [o for o in trainer.optimizers if isinstance(o, torch.optim.Optimizer)]
        rate = "lr" if len(optimizers) == 1 else f"lr/{optimizers.index(optimizer)}"
        pl_module.log_dict({**values, rate: float(optimizer.param_groups[0]["lr"])}, batch_size=1)


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
