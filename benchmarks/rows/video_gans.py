"""MoCoGAN, TGAN and VGAN in the published sizes; a step is one of each side, with what is done to weights behind it."""

from functools import partial
from typing import Any

import torch

from benchmarks.rows.base import Row, spec
from vgen.models import mocogan, tgan, vgan
from vgen.training import VideoGAN

_GAN_ADAM = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
_SIDES: dict[str, Any] = {"optimizer": _GAN_ADAM, "discriminator_optimizer": _GAN_ADAM}


def _mocogan(width: int, images: bool, frames: int, side: int, on: bool) -> VideoGAN:
    """With categories and labels; three clips of a batch are seen as clips, where others are seen as frames."""
    return mocogan.MoCoGAN(
        spec(frames, side),
        mocogan.VideoGenerator(categories=None, channels=width),
        mocogan.Discriminator(2, patches=True, channels=width, noise=0.1),
        mocogan.Discriminator(3, channels=width, categories=None, noise=0.1),
        labels=True,
        infogan=True,
        video_batch=3 if images else None,
        **_SIDES,
    )


def _tgan(channels: int, width: int, frames: int, side: int, on: bool) -> VideoGAN:
    """With singular value clipping at every fifth step."""
    rms = partial(torch.optim.RMSprop, lr=5e-5)
    networks = tgan.VideoGenerator(channels=channels), tgan.Critic(width)
    return tgan.TGAN(spec(frames, side), *networks, optimizer=rms, discriminator_optimizer=rms)


def _vgan(width: int, frames: int, side: int, on: bool) -> VideoGAN:
    """Two streams."""
    return vgan.VGAN(spec(frames, side), vgan.VideoGenerator(channels=width), vgan.Discriminator(width), **_SIDES)


ROWS: dict[str, Row] = {
    "mocogan": Row(
        "MoCoGAN of mocogan_mug.yaml: 10 frames and 3 clips of 16 frames, 64 px",
        clips=10,
        parameters=15_256_596,
        module=partial(_mocogan, 64, True, 16, 64),
        frames=16,
        side=64,
    ),
    "tgan": Row(
        "TGAN of tgan_ucf101.yaml: 16 frames, 64 px, singular values clipped at every fifth step",
        clips=32,
        parameters=15_480_584,
        module=partial(_tgan, 512, 64, 16, 64),
        frames=16,
        side=64,
    ),
    "vgan": Row(
        "VGAN of vgan_ucf101.yaml, two streams: 32 frames, 64 px",
        clips=64,
        parameters=27_303_241,
        module=partial(_vgan, 64, 32, 64),
        frames=32,
        side=64,
    ),
    "mocogan-tiny": Row(
        "tiny networks, 16 frames, 16 px",
        clips=2,
        parameters=17_168,
        module=partial(_mocogan, 2, False, 16, 16),
        frames=16,
        side=16,
    ),
    "tgan-tiny": Row(
        "tiny networks, 16 frames, 16 px",
        clips=2,
        parameters=850_918,
        module=partial(_tgan, 32, 2, 16, 16),
        frames=16,
        side=16,
    ),
    "vgan-tiny": Row(
        "tiny networks, 16 frames, 32 px",
        clips=2,
        parameters=38_387,
        module=partial(_vgan, 2, 16, 32),
        frames=16,
        side=32,
    ),
}
