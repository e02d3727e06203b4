"""VDM-S is video-diffusion-pytorch's U-Net at the size at which that code was timed, VDM its defaults."""

from functools import partial
from typing import Any

import torch

from benchmarks.rows.base import Row, spec, switch
from vgen.diffusion import GaussianDiffusion
from vgen.models import vdm


def _vdm(unet: dict[str, Any], frames: int, side: int, on: bool) -> vdm.VDM:
    """The public code's step: L1, Adam."""
    process = GaussianDiffusion(loss_type="l1")
    denoiser = vdm.Unet3D(**unet, **switch(on))
    return vdm.VDM(spec(frames, side), denoiser, diffusion=process, optimizer=partial(torch.optim.Adam, lr=1e-4))


ROWS: dict[str, Row] = {
    "vdm-s": Row(
        "VDM's Unet3D dim 32, mults 1 2 4 8, 8 frames, 32 px, L1",
        clips=2,
        parameters=9_969_475,
        module=partial(_vdm, {"dim": 32}, 8, 32),
        frames=8,
        side=32,
    ),
    "vdm": Row(
        "VDM's Unet3D dim 64 of vdm_sky.yaml, 16 frames, 64 px, L1, batch of the public code",
        clips=32,
        parameters=35_706_243,
        module=partial(_vdm, {"dim": 64}, 16, 64),
        frames=16,
        side=64,
    ),
    "vdm-tiny": Row(
        "tiny networks, 3 frames, 8 px",
        clips=2,
        parameters=60_051,
        module=partial(_vdm, {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 8}, 3, 8),
        frames=3,
        side=8,
    ),
}
