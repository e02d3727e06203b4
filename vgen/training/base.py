"""Thin LightningModule bases: what every video model has, and the common case of one loss and one optimiser."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.training.sharding import FullySharded, shard
from vgen.video import ClipSpec, Reconstructs, Samples, to_float
from vgen.weights.checkpoint import check_owner, describe_model, load_weights


class VideoModule(Configurable, LightningModule):
    """Base of all models: knows its clips, turns bytes into floats on the device, and describes itself in checkpoints.

    Args:
        clip_spec: Shape, rate and classes of the clips; a recipe fills it in from the data of the same stage.

    Attributes:
        training_only: Constructor arguments that training alone needs, such as losses with pretrained networks: a model
            that is opened for use (`vgen.load`, a codec) gets None for them, and needs none of their files.
        run_dir: Run directory, when the command line trains or loads the model.
        stage_name: Name of the recipe's stage that trains it.
        run_id: Which training it is, when the command line trains the model.
        clips_seen: Training clips seen so far, over all ranks.
    """

    training_only: ClassVar[tuple[str, ...]] = ()

    def __init__(self, clip_spec: ClipSpec) -> None:
        super().__init__()
        self.clip_spec = clip_spec
        self.run_dir: str | None = None
        self.stage_name: str | None = None
        self.run_id: str | None = None
        self.clips_seen = 0
        self._description: dict[str, Any] | None = None

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Picks what a clip is generated from out of a batch: here, the condition keys of the data."""
        return {key: batch[key] for key in self.clip_spec.condition_keys if key in batch}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Converts uint8 pixels to floats in [-1, 1] on the device."""
        if isinstance(batch, dict) and batch["video"].dtype == torch.uint8:
            batch = {**batch, "video": to_float(batch["video"]).to(self.dtype)}  # bf16 under precision: bf16-true
        return batch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Counts the clips: before the step, so that a checkpoint that is written behind it counts them too."""
        self.clips_seen += batch["video"].shape[0] * self.trainer.world_size

    def setup(self, stage: str) -> None:
        """Fails early, before any training, where a checkpoint could not describe the model."""
        if stage == "fit":
            self.header()

    def configure_model(self) -> None:
        """Spreads the weights over the ranks under the strategy `FullySharded`; else does nothing.

        Raises:
            UserError: Under a strategy that asks for shards but whose checkpoints nothing else could read.
        """
        strategy, mesh = self.trainer.strategy, self.device_mesh
        if mesh is None:
            return
        if not isinstance(strategy, FullySharded):
            hint = "use vgen.training.FullySharded (lightning_configs/overlays/fsdp.yaml)"
            raise UserError(f"{type(strategy).__name__} writes checkpoints in shards", "trainer.strategy", hint)
        shard(self, mesh["data_parallel"])

    def on_validation_start(self) -> None:
        """Under sharding: gives all ranks the first one's buffers (BatchNorm statistics), as DDP does at every step."""
        if self.device_mesh is not None:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def header(self) -> dict[str, Any]:
        """Self-description of the model (see `vgen.weights.checkpoint`)."""
        if self._description is None:  # once: it hashes the files that the model was built from
            self._description = describe_model(self, self.clip_spec, self.run_dir)
        return {**self._description, "stage": self.stage_name, "run": self.run_id, "clips": self.clips_seen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the self-description."""
        checkpoint["vgen"] = {**self.header(), "step": int(checkpoint.get("global_step", 0))}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the count of clips; says in one line where the file is another training's, or does not fit."""
        self.clips_seen = int(checkpoint.get("vgen", {}).get("clips", 0))
        where = str(self.trainer.ckpt_path) if self._trainer is not None else "the checkpoint"
        check_owner(checkpoint.get("vgen", {}), Path(where), to_resume=True)
        load_weights(self, checkpoint["state_dict"], where)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Generates a clip for every clip of the batch from its conditions, or reconstructs it where nothing samples.

        The seed of a clip is its place in the set, so that batch size and ranks change nothing.
        """
        if isinstance(self, Samples):
            n, trainer = len(batch["video"]), self.trainer
            first = batch_idx * trainer.datamodule.eval_batch_size  # type: ignore[attr-defined]
            seeds = [(first + i) * trainer.world_size + trainer.global_rank for i in range(n)]
            return self.sample(self.conditions(batch), n, seeds=seeds)
        if isinstance(self, Reconstructs):
            return self.reconstruct(batch)
        raise UserError(f"{type(self).__name__} neither samples nor reconstructs: nothing to predict", "vgen predict")


class SingleLossModule(VideoModule):
    """A model with one loss and one optimiser over its trainable parameters.

    Args:
        clip_spec: See `VideoModule`.
        optimizer: Optimiser of the trainable parameters.
        lr_scheduler: Learning-rate schedule; None keeps the rate constant.
        lr_interval: Unit of the schedule: epochs, as most papers count, or optimiser steps.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec)
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Computes the terms of the loss; `loss` is their weighted sum, which is minimised."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(batch)")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser over what takes a gradient, and its schedule."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": self.lr_interval},
        }

    def _log_terms(self, name: str, terms: dict[str, Tensor], batch: dict[str, Any]) -> None:
        values = {f"{name}/{key}": value.detach() for key, value in terms.items()}
        self.log_dict(values, batch_size=batch["video"].shape[0], sync_dist=name != "train")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch, logged term by term as `train/<term>`."""
        terms = self.loss(batch)
        self._log_terms("train", terms, batch)
        return terms["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The same loss on held-out clips, as `val/<term>`."""
        self._log_terms("val", self.loss(batch), batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The same loss on test clips, as `test/<term>`."""
        self._log_terms("test", self.loss(batch), batch)
