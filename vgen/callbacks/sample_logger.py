"""Shows what a model makes during training, always of the same clips with the same noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from vgen.callbacks.ema import averaged_weights
from vgen.files import write_json
from vgen.video import Field, Illustrates, Reconstructs, Samples, to_uint8
from vgen.video.figure import INK, PAPER, figure
from vgen.video.io import write_video

_KEY_SIDE = 84


class SampleLogger(Callback):
    """Every N steps: an mp4 figure under `<run>/<stage>/samples`, and to W&B where it is a logger.

    Columns are clips. Rows are the picture that a clip is generated from (where there is one), the real clip, its
    reconstruction, the generated clip, and what the model shows of its inside (`Illustrates`: flow, occlusion). The
    first validation clips give the conditions, clip i is generated from seed i, and averaged weights are used where
    the run keeps them: two figures of a run differ by training alone, also on another number of ranks, which share
    the clips among them.

    Args:
        every_n_steps: Optimiser steps between two figures; one is always made at the end.
        num_samples: Clips in a figure.
    """

    def __init__(self, every_n_steps: int = 2000, num_samples: int = 8) -> None:
        self.every_n_steps, self.num_samples = every_n_steps, num_samples
        self._batch: dict[str, Any] | None = None
        self._last = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says once where there is nothing to show."""
        if not isinstance(pl_module, (Samples, Reconstructs, Illustrates)):
            rank_zero_info(
                f"SampleLogger: {type(pl_module).__name__} neither samples nor reconstructs; nothing to show"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Makes a figure at multiples of `every_n_steps`."""
        step = trainer.global_step
        if step and step % self.every_n_steps == 0 and step != self._last:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the last figure."""
        if trainer.global_step != self._last and trainer.global_step > 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = trainer.global_step
        if not isinstance(pl_module, (Samples, Reconstructs, Illustrates)):
            return
        if self._batch is None:
            self._batch = trainer.datamodule.first_clips("val", self.num_samples)  # type: ignore[attr-defined]
        batch = self._batch
        count = len(batch["video"])
        # Every rank computes as many clips (sharded networks take part in every call); what is too much is dropped.
        share = -(-count // trainer.world_size)
        mine = [min(trainer.global_rank + i * trainer.world_size, count - 1) for i in range(share)]
        part = {k: v[mine] if isinstance(v, Tensor) else [v[i] for i in mine] for k, v in batch.items()}
        moved = pl_module.transfer_batch_to_device(part, pl_module.device, 0)
        moved = pl_module.on_after_batch_transfer(moved, 0)
        with torch.no_grad(), evaluating(trainer, pl_module), averaged_weights(trainer, pl_module):
            rows = {name: _gathered(trainer, row, count) for name, row in _rows(pl_module, moved, mine).items()}
        if trainer.is_global_zero:
            self._write(trainer, pl_module, {"real": batch["video"], **rows}, batch)

    def _write(
        self, trainer: Trainer, pl_module: LightningModule, rows: dict[str, Tensor | Field], batch: dict[str, Any]
    ) -> None:
        kind = "samples" if "generated" in rows else "reconstructions"
        captions = [Path(str(text)).name for text in batch.get("text", batch.get("path", []))]
        if "given" in rows:
            rows = {"given": rows.pop("given"), **rows}
        clips: dict[str, Tensor] = {}
        keys: dict[str, Tensor] = {}
        notes: list[str] = []
        for name, row in rows.items():
            if isinstance(row, Field):
                scale = row.full_scale()
                clips[name], keys[name] = row.colour(scale), row.legend(_KEY_SIDE, scale, INK, PAPER)
                notes += [f"{name}: {row.meaning}"] if row.meaning else []
            else:
                clips[name] = row
        drawn, layout = figure({name: list(clip) for name, clip in clips.items()}, captions, keys)
        path = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:08d}_{kind}.mp4"
        fps = float(pl_module.clip_spec.fps)  # type: ignore[union-attr, arg-type]
        write_video(path, drawn, fps=fps, upscale_to=0)
        facts = {"kind": kind, "step": trainer.global_step, "fps": fps, "captions": captions, "rows": "; ".join(notes)}
        write_json(path.with_suffix(".json"), facts | {"layout": layout.to_dict()})
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # A file, not an array: W&B would need moviepy for those, and would smear small clips.
                caption = f"step {trainer.global_step}: {', '.join(captions)}"
                logger.log_video(f"samples/{kind}", [str(path)], trainer.global_step, caption=[caption])


@contextmanager
def evaluating(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Everything in eval mode and, under DDP, with the first rank's buffers; behind the block, as it was.

    Statistics of BatchNorm are each rank's own between two steps; a checkpoint holds the first rank's.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = list(module.buffers()) if isinstance(trainer.strategy, DDPStrategy) else []
    before = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        torch.distributed.broadcast(buffer, src=0)
    module.eval()
    try:
        yield
    finally:
        for buffer, own in zip(buffers, before, strict=True):
            buffer.copy_(own)
        for part, training in modes.items():
            part.training = training


def _rows(module: LightningModule, batch: dict[str, Any], seeds: list[int]) -> dict[str, Tensor | Field]:
    """What the module makes of its share of the clips: uint8 clips on the CPU, and fields."""
    shown: dict[str, Tensor | Field] = {}
    if isinstance(module, Illustrates):
        shown |= module.illustrate(batch, seeds)
    conditions = module.conditions(batch) if isinstance(module, Samples) else {}  # type: ignore[operator]
    if isinstance(module, Samples) and "generated" not in shown:
        shown = {"generated": module.sample(conditions, len(seeds), seeds=seeds), **shown}
    if isinstance(module, Reconstructs) and "reconstructed" not in shown:
        shown = {"reconstructed": module.reconstruct(batch), **shown}
    if isinstance(image := conditions.get("image"), Tensor):
        shown = {"given": image[:, :, None], **shown}
    return {name: row if isinstance(row, Field) else to_uint8(row) for name, row in shown.items()}


def _gathered(trainer: Trainer, row: Tensor | Field, count: int) -> Tensor | Field:
    """The clips of all ranks in their order, on the CPU."""
    values = row.values if isinstance(row, Field) else row
    if trainer.world_size > 1:
        ranks = trainer.strategy.all_gather(values.contiguous())
        values = ranks.transpose(0, 1).flatten(0, 1)  # rank r has the clips r, r + world size, ...
    values = values[:count].cpu()
    return Field(row.kind, values, row.meaning) if isinstance(row, Field) else values
