"""torch.compile for training, where it leaves checkpoints as they are."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class Compile(Callback):
    """Compiles every direct child of the module that trains, in place.

    `Module.compile` leaves names and parameters alone: state dicts, checkpoints, averages and the other callbacks see
    the module as before, which `torch.compile(network)` would wrap and a compiled LightningModule would break. The
    first step takes a minute or more. What calls a network by another method than its forward, as guided sampling
    does, runs as without.

    Args:
        backend: Of torch.compile.
        mode: Of torch.compile: `default`, `reduce-overhead`, `max-autotune`, ...
    """

    def __init__(self, backend: str = "inductor", mode: str | None = None) -> None:
        self.backend, self.mode = backend, mode

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Marks the networks; each is compiled when it is first called."""
        names = compile_networks(pl_module, self.backend, self.mode)
        rank_zero_info(f"compiled with {self.backend}: {', '.join(names) or 'nothing that trains'}")


def compile_networks(module: torch.nn.Module, backend: str = "inductor", mode: str | None = None) -> list[str]:
    """Compiles the trainable direct children of a module in place; returns their names."""
    names = []
    for name, child in module.named_children():
        if any(parameter.requires_grad for parameter in child.parameters()):
            child.compile(backend=backend, mode=mode)
            names.append(name)
    return names
