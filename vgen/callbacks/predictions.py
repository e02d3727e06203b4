"""Writes what `vgen predict` returns as one mp4 per clip."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from vgen.video import to_uint8
from vgen.video.io import write_video


class PredictionWriter(Callback):
    """Writes `<run>/<stage>/predictions/<index>.mp4`; the index is the clip's place in the set."""

    def __init__(self) -> None:
        self._clips = 0  # of this rank so far

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts at the first clip."""
        self._clips = 0

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
        fps = float(pl_module.clip_spec.fps)  # type: ignore[union-attr, arg-type]
        for clip in outputs:
            index = self._clips * trainer.world_size + trainer.global_rank  # as the loaders deal clips out to ranks
            self._clips += 1
            if index >= len(trainer.datamodule.dataset("test")):  # type: ignore[attr-defined]
                continue  # the first clips again, dealt out to give every rank as many
            write_video(folder / f"{index:06d}.mp4", to_uint8(clip).cpu(), fps=fps)
