"""Kills a run at a named place, from outside of vgen: a callback of the recipe, and the file calls of this process.

`VGEN_KILL=<stage>:<phase>:<count>:<who>` says where. The phases:

    step        in the count-th training batch, at a point of it that the count chooses
    write       in the count-th write of last.ckpt, with half of the temporary file on the disk
    rename      in that write, before the file takes its name
    renamed     in that write, after that
    validation  in the count-th validation batch
    done        before done.json takes its name
    between     after that, before the next stage begins

`who` is `rank<r>` (that process alone) or `all` (the whole process group at once). `VGEN_SIGNAL=TERM` sends that signal
instead of SIGKILL, and the run goes on until it ends itself.
"""

import io
import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

PHASES = ("step", "write", "rename", "renamed", "validation", "done", "between")
_POINTS = ("on_train_batch_start", "on_before_zero_grad", "on_after_backward", "on_before_optimizer_step")


class Killer(Callback):
    """Counts what happens in the stage, and strikes."""

    def __init__(self) -> None:
        where = (os.environ.get("VGEN_KILL") or ":::").split(":")
        self.stage, self.phase, count, self.who = where
        self.count = int(count or 0)
        self.seen = 0
        self.rank = 0
        self.point = _POINTS[self.count % len(_POINTS)]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.rank = trainer.global_rank
        if self.stage != pl_module.stage_name or self.phase in ("", "step", "validation"):
            return
        folder = Path(trainer.default_root_dir)
        save, replace = torch.save, os.replace

        def save_half(content: Any, file: Any, *arguments: Any, **options: Any) -> None:
            if self.phase == "write" and f"{folder}/checkpoints/.last.ckpt." in str(getattr(file, "name", "")):
                whole = io.BytesIO()
                save(content, whole, *arguments, **options)
                file.write(whole.getvalue()[: whole.tell() // 2])
                file.flush()
                self.passed()
                file.seek(0)
            save(content, file, *arguments, **options)

        def replace_and_strike(source: Any, target: Any) -> None:
            target = Path(target)
            last, done = target == folder / "checkpoints" / "last.ckpt", target == folder / "done.json"
            if (last and self.phase == "rename") or (done and self.phase == "done"):
                self.passed()
            replace(source, target)
            if (last and self.phase == "renamed") or (done and self.phase == "between"):
                self.passed()

        torch.save, os.replace = save_half, replace_and_strike

    def passed(self) -> None:
        """Strikes when this has happened often enough."""
        self.seen += 1
        if self.seen != self.count or self.who not in ("all", f"rank{self.rank}"):
            return
        print("killer: now", flush=True)
        signum = signal.Signals[f"SIG{os.environ.get('VGEN_SIGNAL', 'KILL')}"]
        if self.who == "all":
            os.killpg(os.getpgrp(), signum)
        else:
            os.kill(os.getpid(), signum)

    def _at(self, point: str, module: Any) -> None:
        if self.phase == "step" and self.point == point and self.stage == module.stage_name:
            self.passed()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        self._at("on_train_batch_start", pl_module)

    def on_before_zero_grad(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        self._at("on_before_zero_grad", pl_module)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self._at("on_after_backward", pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        self._at("on_before_optimizer_step", pl_module)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        if self.phase == "validation" and self.stage == pl_module.stage_name and not trainer.sanity_checking:
            self.passed()
