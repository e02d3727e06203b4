"""Makes every step's randomness a function of (seed, step, rank), so that resumed runs repeat uninterrupted ones."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

_STREAMS = {"train": 0, "validate": 1, "test": 2, "predict": 3}


def seed_of(seed: int, stream: int, index: int, rank: int) -> int:
    """Mixes the four numbers into one 64-bit seed (SplitMix64 finaliser over a sum of odd multiples)."""
    mask = (1 << 64) - 1
    value = (
        seed * 0x9E3779B97F4A7C15 + stream * 0xC2B2AE3D27D4EB4F + index * 0x165667B19E3779F9 + rank * 0xD6E8FEB8
    ) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & mask
    return (value ^ (value >> 31)) & ((1 << 63) - 1)


class StepSeed(Callback):
    """Seeds torch (CPU and accelerators), numpy and python before every batch.

    Nothing random has to be stored in a checkpoint, and each rank draws its own noise. Validation batches are seeded
    by their index alone: the same noise and timesteps at every validation.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _reseed(self, trainer: Trainer, stream: str, index: int) -> None:
        value = seed_of(self.seed, _STREAMS[stream], index, trainer.global_rank)
        torch.manual_seed(value)
        np.random.seed(value % (1 << 32))
        random.seed(value)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds by the number of batches so far; also right under gradient accumulation."""
        self._reseed(trainer, "train", trainer.fit_loop.epoch_loop.total_batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seeds by the index of the batch."""
        self._reseed(trainer, "validate", batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seeds by the index of the batch."""
        self._reseed(trainer, "test", batch_idx)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seeds by the index of the batch."""
        self._reseed(trainer, "predict", batch_idx)
