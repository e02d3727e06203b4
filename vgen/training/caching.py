"""Latents of a stage's training set, encoded once at its start and kept in its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from vgen.codecs import Frozen, Latent, LatentCache
from vgen.errors import UserError
from vgen.training.base import VideoModule

Batch = dict[str, Any]


def on_device(module: VideoModule, batch: Batch) -> Batch:
    """A batch of a loader, as a training step sees it."""
    moved: Batch = module.transfer_batch_to_device(batch, module.device, 0)
    moved = module.on_after_batch_transfer(moved, 0)
    return moved


def cached_latents(
    module: VideoModule, codec: Frozen, encode: Callable[[Batch], Latent], **settings: Any
) -> LatentCache:
    """Opens the cache of a stage, which the first rank fills where it is not there yet.

    Args:
        module: The module that trains, attached to its trainer.
        codec: Its frozen first stage, of which the constructor's argument `codec` tells the file.
        encode: Latents of a batch on the device.
        settings: What else the latents depend on.

    Raises:
        UserError: A training clip is another one in every epoch.
    """
    data = module.trainer.datamodule  # type: ignore[attr-defined]
    if not data.repeatable:
        raise UserError(
            "latents can be cached only where a training clip is the same in every epoch",
            "cache_latents",
            "set augmentation: none and sampling: uniform, or cache_latents: false",
        )
    key = {"data": data.fingerprint, "clips": module.clip_spec.to_dict()}
    key["frames"] = [data.sampling, data.stride, data.short_clips, data.resize]
    key["codec"] = [module.header()["init_args"]["codec"], codec.fingerprint()]
    cache = LatentCache(Path(module.trainer.default_root_dir) / "latents.safetensors", key | settings)
    if module.trainer.is_global_zero and not cache.open():
        rank_zero_info("caching the latents of the training set")
        cache.build(data.ordered_train_dataloader(), lambda batch: encode(on_device(module, batch)))
    module.trainer.strategy.barrier("vgen: latents cached")
    cache.open()
    return cache
