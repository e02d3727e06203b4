"""The mechanics of adversarial training: whose turn it is, what counts as a step, how gradients are gathered."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vgen.errors import UserError
from vgen.training.base import SingleLossModule
from vgen.training.constraints import Constraint
from vgen.video import ClipSpec

Batch = dict[str, Any]
Loss = Callable[[Batch], dict[str, Tensor]]


class AdversarialModule(SingleLossModule):
    """A generator with discriminators; where there are none, it trains like any `SingleLossModule`.

    A subclass says in `discriminators` which of its networks judge, and in `training_step` in which order and on what
    `update_generator` and `update_discriminators` run (or `update_together`): that is the paper's business. One batch
    makes one step of the generator. That is what `global_step`, `max_steps`, checkpoints, averages and logs count:
    Lightning itself would count every optimiser's steps (its issue 17958).

    Args:
        clip_spec: See `VideoModule`.
        optimizer: Optimiser of the generator: of everything that takes a gradient and does not judge.
        discriminator_optimizer: One optimiser for all discriminators.
        lr_scheduler: Learning-rate schedule of both.
        lr_interval: Unit of the schedule; a step is one of the generator.
        discriminator_clip: Largest L2 norm of the gradient of each discriminator; None: not clipped.
        generator_clip: The same for all that the generator's optimiser moves.
        constraint: What is done to the discriminators' weights behind their steps.

    Attributes:
        discriminator_steps: Steps of the discriminators so far.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        optimizer: OptimizerCallable = torch.optim.Adam,
        discriminator_optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        discriminator_clip: float | None = None,
        generator_clip: float | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.discriminator_optimizer, self.discriminator_clip = discriminator_optimizer, discriminator_clip
        self.generator_clip, self.constraint = generator_clip, constraint
        self.discriminator_steps = 0

    @property
    def discriminators(self) -> Mapping[str, nn.Module]:
        """The networks that judge, by name; none: there is no adversarial training."""
        raise NotImplementedError(f"{type(self).__name__} must name its discriminators")

    @property  # type: ignore[misc]  # Lightning lets a module set it; here it follows from the networks
    def automatic_optimization(self) -> bool:
        """Whether Lightning optimises: where nothing judges."""
        return not self.discriminators

    def configure_callbacks(self) -> list[Callback]:
        """None; it is the only hook in front of Lightning's own refusal, which does not say what to do instead.

        Raises:
            UserError: The trainer is to clip or to gather gradients.
        """
        if not self.automatic_optimization and self.trainer.state.fn == TrainerFn.FITTING:
            if self.trainer.gradient_clip_val:
                hint = "set model.init_args.generator_clip and discriminator_clip"
                raise UserError("each network's gradients are clipped by themselves", "trainer.gradient_clip_val", hint)
            if self.trainer.accumulate_grad_batches != 1:
                hint = "use a larger data batch_size, and model.init_args.micro_batches of it"
                what = "gradients are gathered within a batch, for each network"
                raise UserError(what, "trainer.accumulate_grad_batches", hint)
        return []

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds how many steps the discriminators have made: what comes at every so many of them goes on."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["discriminator_steps"] = self.discriminator_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores that count; files of vgen 0.1 have none."""
        super().on_load_checkpoint(checkpoint)
        self.discriminator_steps = int(checkpoint.get("discriminator_steps", 0))

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
        optimizer = self._turn("generator")
        self.toggle_optimizer(optimizer)
        terms = self._gradients([optimizer], parts, loss)
        self._step_generator()
        self.untoggle_optimizer(optimizer)
        return terms

    def update_discriminators(self, parts: Sequence[Batch], loss: Loss, last: bool = True) -> dict[str, Tensor]:
        """One step of all discriminators; see `update_generator`.

        Args:
            parts: See there.
            loss: See there.
            last: Whether it is the last one of this batch: their schedule counts the generator's steps, too.
        """
        optimizer = self._turn("discriminators")
        self.toggle_optimizer(optimizer)
        terms = self._gradients([optimizer], parts, loss)
        self._step_discriminators(last)
        self.untoggle_optimizer(optimizer)
        return terms

    def update_together(self, parts: Sequence[Batch], loss: Loss) -> dict[str, Tensor]:
        """One step of everybody by a single backward pass; see `update_generator`.

        For a game of zero sum, where one loss is minimised by the discriminators and maximised by the generator: the
        loss hands the generated clips to the discriminators by `opposed`.
        """
        terms = self._gradients([self._turn("generator"), self._turn("discriminators")], parts, loss)
        self._step_generator()
        self._step_discriminators()
        return terms

    def after_discriminators(self) -> None:
        """Counts a step of the discriminators, and constrains their weights where it is due."""
        self.discriminator_steps += 1
        if self.constraint is not None and self.discriminator_steps % self.constraint.every == 0:
            for network in self.discriminators.values():
                self.constraint.apply(network, self._mean_of_ranks)

    def _mean_of_ranks(self, value: Tensor) -> Tensor:
        if self._trainer is None or self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.reduce(value.clone(), reduce_op="mean")  # type: ignore[return-value]

    def _turn(self, whose: Literal["generator", "discriminators"]) -> torch.optim.Optimizer:
        optimizers: Any = self.optimizers()
        return optimizers[whose == "discriminators"].optimizer  # type: ignore[no-any-return]

    def _step_generator(self) -> None:
        wrapped: Any = self.optimizers()
        if self.generator_clip is not None:
            moved = [p for group in wrapped[0].optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(moved, self.generator_clip)
        wrapped[0].step()  # Lightning's wrapper counts it
        self._advance_schedules("step", slice(0, 1))

    def _step_discriminators(self, last: bool = True) -> None:
        if self.discriminator_clip is not None:
            for network in self.discriminators.values():
                nn.utils.clip_grad_norm_(network.parameters(), self.discriminator_clip)
        # not by Lightning's wrapper, which counts: this calls the same hooks (watching for non-finite gradients)
        self.trainer.strategy.optimizer_step(self._turn("discriminators"), lambda: None, model=self)
        self.after_discriminators()
        if last:
            self._advance_schedules("step", slice(1, 2))

    def _gradients(
        self, optimizers: Sequence[torch.optim.Optimizer], parts: Sequence[Batch], loss: Loss
    ) -> dict[str, Tensor]:
        """Backward passes of all parts, with one synchronisation of the ranks."""
        for optimizer in optimizers:
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


def opposed(clips: Tensor) -> Tensor:
    """The same clips, to the bit, through which gradients come back with the other sign."""
    return 2 * clips.detach() - clips


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
