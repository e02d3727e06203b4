"""PVDM, at the sizes at which its official code was timed."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.rows.base import Row, spec, switch
from vgen.codecs import LatentCache
from vgen.models.pvdm import PVDM, PlaneAutoencoder, PlaneUNet, ViTAutoencoder

_ADAMW = {
    "pvdm-ae": partial(torch.optim.AdamW, lr=1e-4, betas=(0.5, 0.9)),
    "pvdm-dm": partial(torch.optim.AdamW, lr=1e-4),
}


def _pvdm_autoencoder(sizes: dict[str, Any], frames: int, side: int, on: bool) -> PlaneAutoencoder:
    network = ViTAutoencoder(**sizes, **switch(on))
    return PlaneAutoencoder(spec(frames, side), network, perceptual=None, optimizer=_ADAMW["pvdm-ae"])


def _pvdm(codec: dict[str, Any], unet: dict[str, Any], cached: int, frames: int, side: int, on: bool) -> PVDM:
    """PVDM on clips of two of the autoencoder's; `cached` of them are latents of noise already."""
    first = _pvdm_autoencoder(codec, frames // 2, side, False)
    denoiser = PlaneUNet(**unet, **switch(on))
    model = PVDM(spec(frames, side), denoiser, first, conditional_probability=1.0, optimizer=_ADAMW["pvdm-dm"])
    if cached:
        with TemporaryDirectory() as folder:
            model._cache = LatentCache(Path(folder) / "latents.safetensors", {})
            shape = (cached, frames // 2 + 1, denoiser.in_channels, first.grid.tokens)
            noise = {"windows": torch.rand(shape, device="cpu") * 2 - 1}
            model._cache.build([{"path": [str(number) for number in range(cached)]}], lambda _: noise)
            model._cache.open()
    return model


_PLANES_64 = {"model_channels": 64}
_TINY_PLANES = {"model_channels": 8, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": (1,)}
_TINY_PLANES |= {"num_heads": 2, "norm_groups": 4}
_TINY_VIT = {"channels": 8, "depth": 1, "heads": 2, "dim_head": 8, "projector_depth": 1, "projector_hidden": 8}


ROWS: dict[str, Row] = {
    "pvdm-ae": Row(
        "ViTAutoencoder C 128, depth 8, L1 alone, 16 frames, 64 px",
        clips=2,
        parameters=13_608_207,
        module=partial(_pvdm_autoencoder, {"channels": 128}, 16, 64),
        frames=16,
        side=64,
    ),
    "pvdm-dm": Row(
        "PlaneUNet base 64, mults 1 2 4 4, with condition, on cached latents of 16 frames of 256 px",
        clips=2,
        parameters=33_088_516,
        # the autoencoder, of the least size, does not run
        module=partial(_pvdm, {**_TINY_VIT, "heads": 1}, _PLANES_64, 2, 32, 256),
        frames=32,
        side=256,
    ),
    "pvdm-dm-live": Row(
        "the same, encoding both clips of 16 frames by a frozen ViTAutoencoder C 64 in every step",
        clips=2,
        parameters=33_088_516,
        module=partial(_pvdm, {"channels": 64}, _PLANES_64, 0, 32, 256),
        frames=32,
        side=256,
    ),
    "pvdm-stage": Row(
        "the same network and frozen autoencoder, which does not run: on cached latents",
        clips=2,
        parameters=33_088_516,
        module=partial(_pvdm, {"channels": 64}, _PLANES_64, 2, 32, 256),
        frames=32,
        side=256,
    ),
    "pvdm-ae-tiny": Row(
        "tiny networks, 3 frames, 32 px",
        clips=2,
        parameters=8_239,
        module=partial(_pvdm_autoencoder, _TINY_VIT, 3, 32),
        frames=3,
        side=32,
    ),
    "pvdm-dm-tiny": Row(
        "tiny networks on cached latents of 2 frames, 32 px",
        clips=2,
        parameters=14_764,
        module=partial(_pvdm, _TINY_VIT, _TINY_PLANES, 2, 4, 32),
        frames=4,
        side=32,
    ),
}
