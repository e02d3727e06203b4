"""A PVDM of a few thousand weights on clips of 2 frames of 16x24 pixels, built in Python."""

import torch

from vgen.diffusion import DDIM
from vgen.models.pvdm import PVDM, PatchDiscriminator, PlaneAutoencoder, PlaneUNet, ViTAutoencoder
from vgen.video import ClipSpec

FRAMES, HEIGHT, WIDTH = 2, 16, 24
LABELS = {"class_names": ("left", "right"), "condition_keys": ("label", "text")}


def spec(frames=FRAMES, **changes):
    return ClipSpec(frames, HEIGHT, WIDTH, **(LABELS | changes))


def network(**changes):
    small = {"channels": 16, "latent_channels": 2, "depth": 1, "heads": 2, "dim_head": 8, "projector_depth": 1}
    return ViTAutoencoder(**(small | {"projector_hidden": 16} | changes))


def autoencoder(clip=None, judged=False, **changes):
    torch.manual_seed(0)
    judges = {}
    if judged:
        judges = {
            "image_discriminator": PatchDiscriminator(2, 4, 1),
            "video_discriminator": PatchDiscriminator(3, 4, 1),
        }
    return PlaneAutoencoder(clip or spec(), **{"network": network(), "perceptual": None, **judges, **changes})


def unet(**changes):
    small = {"in_channels": 2, "out_channels": 2, "model_channels": 8, "num_res_blocks": 1, "norm_groups": 4}
    small |= {"channel_mult": (1,), "attention_resolutions": (1,), "num_heads": 2}
    return PlaneUNet(**(small | changes))


def pvdm(clip=None, codec=None, **changes):
    codec = codec or autoencoder()
    torch.manual_seed(1)
    denoiser = changes.pop("denoiser", None) or unet()
    with torch.no_grad():
        for value in denoiser.parameters():  # also where it begins with zeros
            value.add_(0.05 * torch.randn_like(value))
    return PVDM(clip or spec(2 * FRAMES), denoiser, codec, **({"sampler": DDIM(3, 1.0, "pvdm")} | changes))


def batch(n=2, frames=2 * FRAMES, seed=2):
    torch.manual_seed(seed)
    return {"video": torch.rand(n, 3, frames, HEIGHT, WIDTH) * 2 - 1, "path": [f"clip{i}" for i in range(n)]}
