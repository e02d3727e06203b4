"""The mechanics of adversarial training: whose turn it is, what counts as a step, how gradients are gathered."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vgen.errors import UserError
from vgen.training.base import SingleLossModule
from vgen.video import ClipSpec

Batch = dict[str, Any]
Loss = Callable[[Batch], dict[str, Tensor]]


class AdversarialModule(SingleLossModule):
    """A generator with discriminators; where there are none, it trains like any `SingleLossModule`.

    A subclass says in `discriminators` which of its networks judge, and in `training_step` in which order and on what
    `update_generator` and `update_discriminators` run: that is the paper's business. One batch makes one step of the
    generator. That is what `global_step`, `max_steps`, checkpoints, averages and logs count: Lightning itself would
    count every optimiser's steps (its issue 17958).

    Args:
        clip_spec: See `VideoModule`.
        optimizer: Optimiser of the generator: of everything that takes a gradient and does not judge.
        discriminator_optimizer: One optimiser for all discriminators.
        lr_scheduler: Learning-rate schedule of both.
        lr_interval: Unit of the schedule; a step is one of the generator.
        discriminator_clip: Largest L2 norm of the gradient of each discriminator; None: not clipped.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        optimizer: OptimizerCallable = torch.optim.Adam,
        discriminator_optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        discriminator_clip: float | None = None,
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.discriminator_optimizer, self.discriminator_clip = discriminator_optimizer, discriminator_clip

    @property
    def discriminators(self) -> Mapping[str, nn.Module]:
        """The networks that judge, by name; none: there is no adversarial training."""
        raise NotImplementedError(f"{type(self).__name__} must name its discriminators")

    @property  # type: ignore[misc]  # Lightning lets a module set it; here it follows from the networks
    def automatic_optimization(self) -> bool:
        """Whether Lightning optimises: where nothing judges."""
        return not self.discriminators

    def on_fit_start(self) -> None:
        """Refuses what adversarial steps cannot do.

        Raises:
            UserError: A gradient scaler, or a form of DDP that waits for gradients of all networks.
        """
        if self.automatic_optimization:
            return
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            hint = "use bf16-mixed, which needs no gradient scaler"
            raise UserError("adversarial training in fp16 is not supported", "trainer.precision", hint)
        wrapped = self.trainer.strategy.model
        if isinstance(wrapped, DistributedDataParallel) and not wrapped.find_unused_parameters:
            what = "generator and discriminators take turns, and plain DDP waits for gradients of all weights"
            hint = "use vgen.training.DataParallel (lightning_configs/overlays/ddp.yaml)"
            raise UserError(what, "trainer.strategy", hint)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The generator's optimiser, and that of the discriminators where there are any."""
        judges = {p for network in self.discriminators.values() for p in network.parameters()}
        if not judges:
            return super().configure_optimizers()
        generator = [p for p in self.parameters() if p.requires_grad and p not in judges]
        optimizers = [self.optimizer(generator)]
        optimizers.append(self.discriminator_optimizer([p for p in self.parameters() if p in judges]))
        schedules = [] if self.lr_scheduler is None else [self.lr_scheduler(optimizer) for optimizer in optimizers]
        return optimizers, [{"scheduler": s, "interval": self.lr_interval} for s in schedules]  # type: ignore[return-value]

    # One step ---------------------------------------------------------------------------------------------------------

    def update_generator(self, parts: Sequence[Batch], loss: Loss) -> dict[str, Tensor]:
        """One step of the generator, which is a step of the training.

        Args:
            parts: Batches whose gradients are averaged.
            loss: Terms of a part's loss; `loss` is minimised.

        Returns:
            Mean of each term over the parts, detached.
        """
        optimizer = self.optimizers()[0]  # type: ignore[index]
        self.toggle_optimizer(optimizer)
        terms = self._gradients(optimizer.optimizer, parts, loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        self._advance_schedules("step", slice(0, 1))
        return terms

    def update_discriminators(self, parts: Sequence[Batch], loss: Loss) -> dict[str, Tensor]:
        """One step of all discriminators; see `update_generator`."""
        optimizer = self.optimizers()[1].optimizer  # type: ignore[index, union-attr]
        self.toggle_optimizer(optimizer)
        terms = self._gradients(optimizer, parts, loss)
        if self.discriminator_clip is not None:
            for network in self.discriminators.values():
                nn.utils.clip_grad_norm_(network.parameters(), self.discriminator_clip)
        # not by Lightning's wrapper, which counts: this calls the same hooks (watching for non-finite gradients)
        self.trainer.strategy.optimizer_step(optimizer, lambda: None, model=self)
        self.untoggle_optimizer(optimizer)
        self._advance_schedules("step", slice(1, 2))
        return terms

    def _gradients(self, optimizer: torch.optim.Optimizer, parts: Sequence[Batch], loss: Loss) -> dict[str, Tensor]:
        """Backward passes of all parts, with one synchronisation of the ranks."""
        optimizer.zero_grad(set_to_none=True)
        strategy, sums = self.trainer.strategy, dict[str, Tensor]()
        for number, part in enumerate(parts, 1):
            waits = number < len(parts) and isinstance(strategy, ParallelStrategy)
            with strategy.block_backward_sync() if waits else nullcontext():  # type: ignore[attr-defined]
                terms = loss(part)
                self.manual_backward(terms["loss"] / len(parts))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(parts)  # type: ignore[operator]
        return sums

    def on_train_epoch_end(self) -> None:
        """Advances schedules that count epochs, which Lightning leaves to the module here."""
        if not self.automatic_optimization:
            self._advance_schedules("epoch", slice(None))

    def _advance_schedules(self, interval: Literal["epoch", "step"], which: slice) -> None:
        if self.lr_interval == interval:
            for config in self.trainer.lr_scheduler_configs[which]:
                config.scheduler.step()  # type: ignore[call-arg]


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch as equal parts: tensors and lists along their first dimension.

    Raises:
        UserError: It cannot be divided.
    """
    size = len(batch["video"])
    if size % parts:
        what = f"a batch of {size} clips cannot be cut into {parts} equal parts"
        raise UserError(what, "data.init_args.batch_size", f"use {max(size // parts, 1) * parts}")
    step = size // parts
    return [{key: value[i : i + step] for key, value in batch.items()} for i in range(0, size, step)]
