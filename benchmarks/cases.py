"""One step of each row of the step-time table, in the variants in which it is measured."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.rows import ROWS
from benchmarks.rows.base import Batch
from vgen.callbacks import EMA
from vgen.models.tgan import TGAN
from vgen.training import AdversarialModule, VideoGAN

Precision = Literal["32", "bf16"]
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Variant:
    """How a row is run.

    Args:
        device: `cpu` or `cuda`.
        precision: `32`, or `bf16` for autocast.
        compile: Compile the trainable networks in place.
        backend: Of torch.compile.
        checkpointing: Recompute activations in the backward pass.
        batch: Clips in the batch; 0 takes the row's own number.
    """

    device: str = "cpu"
    precision: Precision = "32"
    compile: bool = False
    backend: str = "inductor"
    checkpointing: bool = False
    batch: int = 0


def autocast(variant: Variant) -> AbstractContextManager[Any]:
    """The context of a forward pass, as Lightning's precision plugin makes it."""
    return torch.autocast(variant.device, torch.bfloat16) if variant.precision == "bf16" else nullcontext()


def build(name: str, variant: Variant) -> Step:
    """One step of a row, which returns its loss, or the mean of the clips where it samples.

    A step of the optimiser is loss, gradients, clipping and averaging where the row has them, and the update.
    Weights, batch and the noise of step i are the same in every process.
    """
    row = ROWS[name]
    torch.manual_seed(0)
    module = row.module(variant.checkpointing).to(variant.device).train()
    batch = module.on_after_batch_transfer(row.batch(variant.batch or row.clips, variant.device), 0)
    optimizer: Any = module.configure_optimizers()
    parameters = [p for p in module.parameters() if p.requires_grad]
    ema = EMA(row.ema, warmup=False)
    if row.ema:
        ema.start(module)
    if variant.compile:
        from vgen.callbacks.compile import compile_networks  # an older checkout need not have it

        compile_networks(module, variant.backend)
    if isinstance(module, AdversarialModule) and module.discriminators:
        return _adversarial_step(module, batch, optimizer[0], variant)

    def sample() -> Tensor:
        clips: Any = module
        with autocast(variant):
            sampled: Tensor = clips.sample(module.conditions(batch), len(batch["video"]))
        return sampled.mean()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(variant):
            loss = module.loss(batch)["loss"]
        loss.backward()
        if row.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, row.clip_norm)
        optimizer.step()
        if row.ema:
            ema.update(module)
        return loss.detach()

    return sample if row.samples else step


def _adversarial_step(module: AdversarialModule, batch: Batch, optimizers: list[Any], variant: Variant) -> Step:
    """One step of each side, as the module makes it, without a trainer; returns the discriminators' loss."""
    generator, judges = ([p for group in o.param_groups for p in group["params"]] for o in optimizers)

    def move(numbers: tuple[int, ...], loss: Callable[[Batch], dict[str, Tensor]], part: Batch) -> Tensor:
        for own, parameters in enumerate((generator, judges)):
            for parameter in parameters:
                parameter.requires_grad_(own in numbers)
        for number in numbers:
            optimizers[number].zero_grad(set_to_none=True)
        with autocast(variant):
            value = loss(part)["loss"]
        value.backward()
        for number in numbers:
            optimizers[number].step()
        for parameter in (*generator, *judges):
            parameter.requires_grad_(True)
        return value.detach()

    def step() -> Tensor:
        assert isinstance(module, VideoGAN)
        with autocast(variant):
            part = module.prepare(batch)
        together = isinstance(module, TGAN)
        loss = move((0, 1) if together else (1,), module.discriminator_loss, part)
        module.after_discriminators()
        if not together:
            move((0,), module.generator_loss, part)
        return loss

    return step
