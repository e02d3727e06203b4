"""Writes what `vgen predict` returns as one mp4 per clip."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from vgen.video import to_uint8
from vgen.video.io import write_video


class PredictionWriter(Callback):
    """Writes `<run>/<stage>/predictions/<index>.mp4`, index counted over batches and ranks."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the clips of one batch."""
        folder = Path(trainer.default_root_dir) / "predictions"
        size = len(outputs)
        first = (batch_idx * trainer.world_size + trainer.global_rank) * size
        for offset, clip in enumerate(outputs):
            fps = float(pl_module.clip_spec.fps)  # type: ignore[union-attr]
            write_video(folder / f"{first + offset:06d}.mp4", to_uint8(clip).cpu(), fps=fps)
