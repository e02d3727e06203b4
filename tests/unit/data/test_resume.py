"""A killed Lightning run goes on with the batches that an uninterrupted one would have had."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from vgen.data.datamodules import MUG


class Listens(pl.LightningModule):
    """Remembers what it was fed with."""

    def __init__(self):
        super().__init__()
        self.layer, self.heard = torch.nn.Linear(1, 1), []

    def training_step(self, batch, index):
        self.heard.append((self.current_epoch, index, batch["path"], int(batch["video"].sum())))
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(root, folder, limit, checkpoint=None):
    module = Listens()
    trainer = pl.Trainer(
        max_steps=9, limit_train_batches=limit, accelerator="cpu", logger=False, use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
    )  # fmt: skip
    trainer.fit(module, MUG(str(root), 32, 2, "pair", batch_size=14, augmentation="lfae_pair"), ckpt_path=checkpoint)
    return module.heard


@pytest.mark.parametrize("limit", [None, 3])
def test_lightning_resumes_exactly(mug_root, tmp_path, limit):
    whole = train(mug_root, tmp_path, limit)
    assert {epoch for epoch, *_ in whole} == set(range(3))  # 4 batches an epoch, or 3
    for step in (2, 3, 4, 6):  # inside an epoch, and at either kind of end
        assert train(mug_root, tmp_path / "again", limit, tmp_path / f"step={step}.ckpt") == whole[step:]
