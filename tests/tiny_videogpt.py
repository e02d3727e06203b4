"""A VQ-VAE and priors of the least size."""

import torch

from vgen.models.videogpt import VQVAE, CodeTransformer, VideoGPT, VideoVQVAE
from vgen.video import ClipSpec

SPEC = ClipSpec(4, 8, 8, class_names=("left", "right", "up"), condition_keys=("label",))


@torch.no_grad()
def taught(module):
    """As after some training: nothing is zero any more, and statistics are there."""
    for value in module.parameters():
        value.add_(0.1 * torch.randn_like(value))
    return module


def vqvae():
    return taught(VideoVQVAE(SPEC, VQVAE(8, 6, 12, 1, (2, 2, 2))))


def videogpt(codec=None, **arguments):
    given = {"class_conditional": False, "condition_frames": 0, "attention": "full"} | arguments
    prior = CodeTransformer(24, 2, 2, condition_widths=(4, 4, 8, 12), block=8, local_blocks=1, **given)
    return taught(VideoGPT(SPEC, prior, codec or vqvae().eval()))


def batch(n=3):
    return {"video": torch.rand(n, 3, 4, 8, 8) * 2 - 1, "label": torch.arange(n) % 3, "path": list(map(str, range(n)))}
