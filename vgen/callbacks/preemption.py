"""Ends a training that is asked to make room, without losing a step."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointBase
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, Work, all_reduce, destroy_process_group, new_group

from vgen.callbacks.checkpoint import Checkpoint
from vgen.callbacks.ema import EMA

# SIGTERM is what schedulers, containers and people send; SIGUSR1 is what `sbatch --signal=USR1@90` sends in advance.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """The training has ended because a signal asked for it. The exit code is 128 + signal, as a shell reports it.

    Args:
        signum: The signal.
        agreed: Whether all ranks end at this point.
    """

    def __init__(self, signum: int, agreed: bool) -> None:
        super().__init__(128 + signum)
        self.code: int = 128 + signum
        self.agreed = agreed


class Preemption(CheckpointBase):
    """On SIGTERM or SIGUSR1: writes `last.ckpt` at the next optimiser step and ends with exit code 128 + signal.

    All ranks stop at the same step, whichever of them has got the signal: at every step each gives its number to a
    maximum over all ranks on the CPU (gloo), and looks at the result one step later. So nobody waits, and the device
    is not synchronised. Within a validation the same happens at every batch, and the checkpoint is the one of the step
    before the validation, which a resumed run does again. Further signals change nothing: schedulers repeat them.

    It is a checkpoint callback to be called after `Checkpoint`, which it needs.
    """

    def __init__(self) -> None:
        self.stopping = 0  # the signal, once all ranks know of it
        self._received = 0
        self._training = self._over = self._saved = False
        self._before: dict[int, Any] = {}  # handlers that were there before this one
        self._last_step = 0
        self._group: ProcessGroup | None = None
        self._pending: tuple[Work, Tensor] | None = None

    # Signals ----------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                before = signal.signal(signum, self._receive)
                self._before.setdefault(signum, before)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._over:  # Lightning puts this handler back when a training has failed
            signal.signal(signum, self._before[signum])
            os.kill(os.getpid(), signum)
            return
        self._received = self._received or signum
        if not self._training:  # nothing is there that could be saved
            raise Preempted(signum, agreed=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listens before Lightning does, which then leaves SIGUSR1 alone; it would save and requeue in its own way."""
        self._listen()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens again, in the place of Lightning's handler of SIGTERM.

        That one (2.6) starts a collective operation in the midst of whatever its rank is doing, so that ranks wait for
        each other for ever, and ends without a checkpoint and with exit code 0.
        """
        self._listen()

    # The ranks --------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the end of a step."""
        self._last_step = trainer.global_step
        if trainer.world_size > 1:
            self._group = new_group(backend="gloo")
        self._training = True
        self._listen()

    def _ask(self) -> None:
        """Learns which signal any rank had at the last call, and passes on this rank's."""
        if self._group is None:
            self.stopping = self._received
            return
        self._learn()
        mine = torch.tensor(self._received)
        work = all_reduce(mine, ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = (work, mine)

    def _learn(self) -> None:
        if self._pending is not None:
            work, largest = self._pending
            work.wait()
            self.stopping, self._pending = int(largest), None

    # The end ----------------------------------------------------------------------------------------------------------

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listens no more."""
        self._over = True
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hands further signals over to whom they went before."""
        self._over = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if asked to end, where this batch has ended an optimiser step that is not the last of the training."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        self._ask()
        if self.stopping and trainer.global_step != trainer.max_steps:
            self._saved = _checkpoint(trainer).save_now(trainer)

    # It ends one hook later, because the numbers of a step are logged behind `on_train_batch_end`.

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends where the step before was saved."""
        if self._saved:
            self._end(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends where the step before was saved."""
        if self._saved:
            self._end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends where the step before was saved, or where the end of the epoch had to be waited for."""
        last = trainer.global_step == trainer.max_steps or trainer.current_epoch + 1 == trainer.max_epochs
        if self.stopping and not last:
            _checkpoint(trainer).save_at_epoch_end(trainer)
            self._end(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Ends here if asked to; a validation behind the last step is finished instead, and with it the training."""
        if not self._training or trainer.sanity_checking:
            return
        self._ask()
        if self.stopping and trainer.global_step != trainer.max_steps:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EMA):
                    callback.on_validation_end(trainer, pl_module)  # the raw weights belong into the checkpoint
            _checkpoint(trainer).save_now(trainer)
            self._end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learns whether the command should go on with the next stage."""
        self._ask()
        self._learn()
        if self._group is not None:
            destroy_process_group(self._group)

    def _end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            stage = getattr(pl_module, "stage_name", None) or "fit"
            name = signal.Signals(self.stopping).name
            print(f"[{stage}] {name}: saved step {trainer.global_step}; --resume goes on", flush=True)
        raise Preempted(self.stopping, agreed=True)


def _checkpoint(trainer: Trainer) -> Checkpoint:
    return next(c for c in trainer.callbacks if isinstance(c, Checkpoint))  # type: ignore[attr-defined]
