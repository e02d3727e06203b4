"""Writes samples and reconstructions during training, always of the same clips with the same noise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from vgen.callbacks.ema import averaged_weights
from vgen.files import write_json
from vgen.video import Reconstructs, Samples, to_uint8
from vgen.video.grid import video_grid
from vgen.video.io import write_video


class SampleLogger(Callback):
    """Every N steps: mp4 grids under `<run>/<stage>/samples`, and to W&B where it is a logger.

    The first validation clips give the conditions, clip i is sampled from seed i, and averaged weights are used where
    the run keeps them, so that two pictures of a run differ by training alone. A model that only reconstructs gives
    reconstructions (real clips in the upper row, theirs below).

    Args:
        every_n_steps: Optimiser steps between two pictures; one is always made at the end.
        num_samples: Clips in a picture.
    """

    def __init__(self, every_n_steps: int = 2000, num_samples: int = 8) -> None:
        self.every_n_steps, self.num_samples = every_n_steps, num_samples
        self._batch: dict[str, Any] | None = None
        self._last = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says once where a model can do neither."""
        if not isinstance(pl_module, (Samples, Reconstructs)):
            rank_zero_info(
                f"SampleLogger: {type(pl_module).__name__} neither samples nor reconstructs; nothing to show"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes a picture at multiples of `every_n_steps`."""
        step = trainer.global_step
        if step and step % self.every_n_steps == 0 and step != self._last:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the last picture."""
        if trainer.global_step != self._last and trainer.global_step > 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._show(trainer, pl_module)

    def _fixed_batch(self, trainer: Trainer) -> dict[str, Any] | None:
        """The first `num_samples` validation clips, on the CPU."""
        if self._batch is None:
            parts: list[dict[str, Any]] = []
            for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
                parts.append(batch)
                if sum(len(p["video"]) for p in parts) >= self.num_samples:
                    break
            if not parts:
                return None
            self._batch = {key: _join([p[key] for p in parts])[: self.num_samples] for key in parts[0]}
        return self._batch

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = trainer.global_step
        if not trainer.is_global_zero:
            return
        batch = self._fixed_batch(trainer)
        if batch is None:
            return
        real = batch["video"]
        moved = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
        moved = pl_module.on_after_batch_transfer(moved, 0)
        captions = [str(text) for text in batch.get("text", batch.get("path", []))]
        was_training = pl_module.training
        pl_module.eval()
        try:
            with torch.no_grad(), averaged_weights(trainer, pl_module):
                for kind, video in _pictures(pl_module, moved):
                    rows = torch.cat([real, to_uint8(video).cpu()])
                    self._write(trainer, kind, video_grid(rows, columns=len(real)), captions, pl_module)
        finally:
            pl_module.train(was_training)

    def _write(
        self, trainer: Trainer, kind: str, grid: Tensor, captions: list[str], pl_module: LightningModule
    ) -> None:
        path = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:08d}_{kind}.mp4"
        fps = float(pl_module.clip_spec.fps)  # type: ignore[union-attr, arg-type]
        write_video(path, grid, fps=fps)
        rows = "upper row: real clips; lower row: " + ("generated" if kind == "samples" else "reconstructed")
        facts = {"kind": kind, "step": trainer.global_step, "fps": fps, "captions": captions, "rows": rows}
        write_json(path.with_suffix(".json"), facts)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_video(
                    f"samples/{kind}", [str(path)], step=trainer.global_step, caption=[", ".join(captions)]
                )


def _join(values: list[Any]) -> Any:
    return torch.cat(values) if isinstance(values[0], Tensor) else [item for value in values for item in value]


def _pictures(module: LightningModule, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    n = len(batch["video"])
    if isinstance(module, Reconstructs):
        yield "reconstructions", module.reconstruct(batch)
    if isinstance(module, Samples):
        yield "samples", module.sample(module.conditions(batch), n, seeds=list(range(n)))  # type: ignore[operator]
