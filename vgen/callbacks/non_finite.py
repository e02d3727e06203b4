"""Stops a training, or skips the step, where the loss or a gradient is not a finite number."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vgen.errors import UserError, one_line

_log = logging.getLogger(__name__)
_SHOWN = 8  # clips that a message names


@dataclass
class _Step:
    """What is known of the batches of one optimiser step, until it is looked at.

    Args:
        number: The step, counted from 1.
        clips: Paths of this rank's clips.
        losses: Losses of this rank, on the device.
        gradients: Largest magnitude of each parameter's gradient, on the device.
        names: Which parameters those are.
    """

    number: int
    clips: list[str] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def flag(self, device: torch.device) -> Tensor:
        """1 where any of the numbers is not finite, else 0, on the device."""
        numbers = torch.cat(
            [x.detach().float().reshape(-1) for x in (*self.losses, *self.gradients)] or [torch.ones(0)]
        )
        return (~torch.isfinite(numbers)).any().float().to(device)


class NonFinite(Callback):
    """Watches loss and gradients of every step.

    Under `stop` nothing is read back from the device in a step: the numbers stay there, together with the names of the
    clips on the host, and are looked at once in `trainer.log_every_n_steps` steps (when the loggers read the device
    anyway), before each validation and before each checkpoint. So the message may come some steps late but names the
    right step and clips, and no checkpoint is written with weights that such a step has touched.

    Under `skip` the optimiser must know before it moves: one number is read back in each optimiser step (on a GPU that
    costs the time to launch the optimiser's kernels, as a gradient scaler does). All ranks skip together. A skipped
    step changes nothing (weights, optimiser state, average, running statistics of BatchNorm), but it counts as a step,
    so that the order of clips and the schedules stay as they were; `train/skipped_steps` counts them in the log.

    Under a gradient scaler (`precision: 16-mixed`), gradients that are too large are its own business: it skips the
    step and scales less. Then only the loss is watched.

    Args:
        action: `stop` ends the training with an error; `skip` goes on without the step.
        max_skipped: So many skipped steps in a row end the training: not the clips are to blame then.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop", max_skipped: int = 10) -> None:
        self.action, self.max_skipped = action, max_skipped
        self.skipped = 0
        self.in_a_row = 0
        self.skipping = False  # whether the step of the batch under way is skipped
        self._step: _Step | None = None
        self._waiting: list[_Step] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []  # with their values before the step

    # What is watched ------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the clips, and under `skip` what a step changes besides the weights."""
        self.skipping = False
        if self._step is None:
            self._step = _Step(trainer.global_step + 1)
            if self.action == "skip":
                training = (module for module in pl_module.modules() if module.training)
                buffers = [buffer for module in training for buffer in module.buffers(recurse=False)]
                self._buffers = [(buffer, buffer.detach().clone()) for buffer in buffers]
        paths = batch.get("path", []) if isinstance(batch, dict) else []
        self._step.clips += [str(path) for path in paths]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keeps the loss."""
        if self._step is not None:
            self._step.losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Keeps the magnitude of the gradients; under `skip`, takes them away where they are not finite."""
        if self._step is None:
            return
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if not scaled or self.action == "skip":
            self._keep_gradients(pl_module, optimizer)
        if self.action == "skip" and self._anywhere(trainer, self._step):
            self.skipping = True
            if scaled and not self._anywhere(trainer, _Step(self._step.number, losses=self._step.losses)):
                return  # the scaler skips by itself
            # Optimisers pass over parameters without a gradient: no momentum, no decay, no count.
            optimizer.zero_grad(set_to_none=True)
            self._skip(trainer, pl_module, self._step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at what has gathered, once in an interval of the log."""
        if self._step is None or self._step.number > trainer.global_step:
            return  # within a step, under gradient accumulation
        if self.action == "stop":
            self._waiting.append(self._step)
        elif not self.skipping:
            self.in_a_row = 0
        self._step = None
        if self.action == "skip":
            pl_module.log("train/skipped_steps", float(self.skipped), batch_size=1)
        if len(self._waiting) >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self._look(trainer, pl_module)

    # When it is looked at -------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks before a validation."""
        self._look(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the last steps."""
        self._look(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks before a checkpoint is written, also at the weights themselves.

        Raises:
            UserError: A step since the last look, or a weight, is not finite: the previous checkpoint stays.
        """
        steps = [self._step] if self._step is not None and self.action == "stop" else []
        self._look(trainer, pl_module, steps)
        parameters = [(name, p) for name, p in pl_module.named_parameters() if p.requires_grad]
        largest = _magnitudes([p.detach() for _, p in parameters])
        if _reduced(trainer, (~torch.isfinite(largest)).any().float().to(pl_module.device)):
            bad = [name for (name, _), x in zip(parameters, largest.tolist(), strict=True) if not _finite(x)]
            raise UserError(
                f"weights are not finite after step {trainer.global_step} of stage {_stage(pl_module)}, which was too "
                "large" + (f": {bad[0]}" if bad else ""),
                str(trainer.default_root_dir),
                "the last checkpoint is whole: lower the learning rate, or clip gradients, and go on with --resume",
            )

    def _look(self, trainer: Trainer, pl_module: LightningModule, more: Iterable[_Step] = ()) -> None:
        steps = [*self._waiting, *more]
        self._waiting = []
        if not steps or trainer.sanity_checking:
            return
        flags = torch.stack([step.flag(pl_module.device) for step in steps])
        flags = _reduced_tensor(trainer, flags)
        for step, flag in zip(steps, flags.tolist(), strict=True):
            if flag:
                what, where = self._describe(trainer, pl_module, step)
                skip = "{class_path: vgen.callbacks.NonFinite, init_args: {action: skip}}"
                raise UserError(
                    what, where, f"look at these clips, lower the learning rate, or add {skip} to trainer.callbacks"
                )

    # Details --------------------------------------------------------------------------------------------------------

    def _keep_gradients(self, pl_module: LightningModule, optimizer: Any) -> None:
        assert self._step is not None
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = [(name, p.grad) for name, p in pl_module.named_parameters() if p.grad is not None and id(p) in own]
        if named:
            self._step.gradients.append(_magnitudes([grad for _, grad in named]))
            self._step.names += [name for name, _ in named]

    def _anywhere(self, trainer: Trainer, step: _Step) -> bool:
        return _reduced(trainer, step.flag(trainer.strategy.root_device))

    def _skip(self, trainer: Trainer, pl_module: LightningModule, step: _Step) -> None:
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        what, where = self._describe(trainer, pl_module, step)
        if self.in_a_row > self.max_skipped:
            hint = "the weights are to blame and not the clips: go back, lower the learning rate"
            raise UserError(f"{what}, as in the {self.max_skipped} steps before it", where, hint)
        if trainer.is_global_zero:
            _log.warning("%s: the step is skipped (%d so far); clips: %s", what, self.skipped, where)

    def _describe(self, trainer: Trainer, pl_module: LightningModule, step: _Step) -> tuple[str, str]:
        """What is not finite, and the clips: of the ranks whose own loss it is, or else of all."""
        losses = all(bool(torch.isfinite(loss).all()) for loss in step.losses)
        largest = torch.cat(step.gradients).tolist() if step.gradients else []
        gradient = next((name for name, x in zip(step.names, largest, strict=True) if not _finite(x)), None)
        ranks: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1:
            dist.all_gather_object(ranks, (losses, gradient, step.clips))
        else:
            ranks = [(losses, gradient, step.clips)]
        guilty = [rank for rank in ranks if not rank[0]]
        if guilty:
            subject = "the loss is"
        else:
            name = next((rank[1] for rank in ranks if rank[1]), None)
            subject = f"the gradient of {name} is"
        clips = [one_line(path) for rank in guilty or ranks for path in rank[2]]
        more = f" and {len(clips) - _SHOWN} more" if len(clips) > _SHOWN else ""
        what = f"{subject} not a finite number in step {step.number} of stage {_stage(pl_module)}"
        return what, ", ".join(clips[:_SHOWN]) + more

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped; nothing under `stop`."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row} if self.action == "skip" else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the counts."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]


def step_was_skipped(trainer: Trainer) -> bool:
    """Whether the optimiser step of the batch under way was skipped."""
    return any(isinstance(c, NonFinite) and c.skipping for c in trainer.callbacks)  # type: ignore[attr-defined]


def _magnitudes(tensors: list[Tensor]) -> Tensor:
    """Largest magnitude in each tensor, (n,); NaN where one holds NaN. Squares, as in a norm, could overflow."""
    local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]  # shards of this rank, under FSDP
    local = [t if t.numel() else t.new_zeros(1) for t in local]
    if not local:
        return torch.zeros(0)
    return torch.stack([x.float() for x in torch._foreach_norm(local, float("inf"))])


def _reduced_tensor(trainer: Trainer, flags: Tensor) -> Tensor:
    """The largest over all ranks: every rank comes to the same decision."""
    if trainer.world_size > 1:
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return flags


def _reduced(trainer: Trainer, flag: Tensor) -> bool:
    return bool(_reduced_tensor(trainer, flag))


def _finite(value: float) -> bool:
    return value - value == 0


def _stage(pl_module: LightningModule) -> str:
    return repr(getattr(pl_module, "stage_name", None) or type(pl_module).__name__)
