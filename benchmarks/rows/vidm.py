"""VIDM, at the two sizes at which its official code was timed.

Steps clip gradients and average the weights, as that code's do; rows named clip sample.
"""

from functools import partial
from typing import Any

import torch

from benchmarks.rows.base import Row, spec
from vgen.diffusion import GaussianDiffusion, LossWeighting, RespacedDDPM
from vgen.models.vidm import Layout, MotionGenerator, VIDMMotion
from vgen.nn.flow import SpyNet


def _vidm(layout: dict[str, Any], steps: int | str, frames: int, side: int, on: bool) -> VIDMMotion:
    """The motion generator as released, SpyNet trained along."""
    if on:
        raise ValueError("VIDM's networks have no gradient checkpointing")
    network = MotionGenerator(Layout(**layout), flow=SpyNet())
    process = GaussianDiffusion("linear", variance="learned_range", weighting=LossWeighting("p2", gamma=1.0))
    optimizer = partial(torch.optim.AdamW, lr=2e-5, fused=True)
    return VIDMMotion(spec(frames, side), network, diffusion=process, sampler=RespacedDDPM(steps), optimizer=optimizer)


_VIDM = {"model_channels": 32, "channel_mult": (1, 1, 2, 2), "num_head_channels": 32}
_VIDM_S = {**_VIDM, "num_res_blocks": 2, "attention_resolutions": (4,)}
_VIDM_M = {**_VIDM, "num_res_blocks": 1, "attention_resolutions": (8,)}
_TINY_VIDM = {**_VIDM, "num_res_blocks": 1, "channel_mult": (1, 1), "attention_resolutions": ()}


ROWS: dict[str, Row] = {
    "vidm-s": Row(
        "VIDM's motion generator, width 32, mults 1 1 2 2, 2 blocks a level, attention at 1/4, 32 px",
        clips=4,
        parameters=4_336_594,
        module=partial(_vidm, _VIDM_S, "ddim100", 8, 32),
        frames=8,
        side=32,
        clip_norm=1.0,
        ema=0.999,
    ),
    "vidm-m": Row(
        "VIDM's motion generator, width 32, mults 1 1 2 2, 1 block a level, attention at 1/8, 64 px",
        clips=2,
        parameters=3_427_154,
        module=partial(_vidm, _VIDM_M, "ddim100", 8, 64),
        frames=8,
        side=64,
        clip_norm=1.0,
        ema=0.999,
    ),
    "vidm-s-clip": Row(
        "vidm-s samples clips of 3 frames by the released 100 steps (ddim100)",
        clips=4,
        parameters=4_336_594,
        module=partial(_vidm, _VIDM_S, "ddim100", 3, 32),
        frames=3,
        side=32,
        samples=True,
    ),
    "vidm-m-clip": Row(
        "vidm-m samples clips of 3 frames by the released 100 steps (ddim100)",
        clips=2,
        parameters=3_427_154,
        module=partial(_vidm, _VIDM_M, "ddim100", 3, 64),
        frames=3,
        side=64,
        samples=True,
    ),
    "vidm-tiny": Row(
        "tiny networks, 3 frames, 32 px",
        clips=2,
        parameters=1_819_922,
        module=partial(_vidm, _TINY_VIDM, 2, 3, 32),
        frames=3,
        side=32,
        clip_norm=1.0,
        ema=0.999,
    ),
    "vidm-clip-tiny": Row(
        "tiny networks sample clips of 3 frames by 2 steps, 32 px",
        clips=2,
        parameters=1_819_922,
        module=partial(_vidm, _TINY_VIDM, 2, 3, 32),
        frames=3,
        side=32,
        samples=True,
    ),
}
