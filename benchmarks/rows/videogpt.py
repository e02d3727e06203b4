"""VideoGPT: the published networks, in batches that a CPU can take."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.rows.base import Row, spec, switch
from vgen.codecs import LatentCache
from vgen.models.videogpt import VQVAE, CodeTransformer, VideoGPT, VideoVQVAE


def _vqvae(sizes: dict[str, Any], frames: int, side: int, on: bool) -> VideoVQVAE:
    return VideoVQVAE(spec(frames, side), VQVAE(**sizes), optimizer=partial(torch.optim.Adam, lr=3e-4))


def _videogpt(first: dict[str, Any], sizes: dict[str, Any], cached: int, frames: int, side: int, on: bool) -> VideoGPT:
    """A prior on cached codes of noise; the VQ-VAE does not run."""
    prior = CodeTransformer(**sizes, **switch(on))
    codec, adam = _vqvae(first, frames, side, False), partial(torch.optim.Adam, lr=3e-4)
    model = VideoGPT(spec(frames, side), prior, codec, optimizer=adam)
    with TemporaryDirectory() as folder:
        model._cache = LatentCache(Path(folder) / "codes.safetensors", {})
        codes = torch.randint(len(codec.network.codebook.embeddings), (cached, *model.code_shape), device="cpu")
        paths = [str(number) for number in range(cached)]
        model._cache.build([{"path": paths}], lambda _: {"codes": codes.short()})
        model._cache.open()
    return model


_THIN_VQVAE = {"hidden": 8, "res_layers": 1}
_TINY_VQVAE = {**_THIN_VQVAE, "embedding_dim": 6, "codes": 12, "downsample": (2, 2, 2)}


ROWS: dict[str, Row] = {
    "vqvae": Row(
        "VQ-VAE of videogpt_ucf101.yaml, 16 frames, 64 px",
        clips=2,
        parameters=21_141_619,
        module=partial(_vqvae, {}, 16, 64),
        frames=16,
        side=64,
    ),
    "vqvae-tiny": Row(
        "tiny networks, 4 frames, 8 px",
        clips=2,
        parameters=8_417,
        module=partial(_vqvae, _TINY_VQVAE, 4, 8),
        frames=4,
        side=8,
    ),
    "videogpt": Row(
        "prior 576 wide, 4 heads, 8 layers, sparse, on cached codes (4x16x16) of 16 frames, 64 px",
        clips=2,
        parameters=33_232_320,
        module=partial(_videogpt, _THIN_VQVAE, {"attention": "sparse"}, 2, 16, 64),
        frames=16,
        side=64,
    ),
    "videogpt-tiny": Row(
        "a tiny prior on cached codes of 4 frames, 8 px",
        clips=2,
        parameters=14_888,
        module=partial(_videogpt, _TINY_VQVAE, {"hidden_dim": 24, "heads": 2, "layers": 2}, 2, 4, 8),
        frames=4,
        side=8,
    ),
}
