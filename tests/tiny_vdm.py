"""A VDM and a latent one of a few thousand weights, untrained, and files of them that commands open."""

import torch
from torch import nn

from vgen.conditioning import LabelEmbedding
from vgen.diffusion import DDIM, GaussianDiffusion, Threshold
from vgen.models.vdm import VDM, Unet3D
from vgen.models.video_ldm import Autoencoder3D, FrameAutoencoder, LVDMUnet, VideoAutoencoder, VideoLDM
from vgen.training import Extension
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export, write_export

SIDE, FRAMES = 8, 6
CLASSES = ("left", "right")


def spec(frames=FRAMES, side=SIDE, labels=False):
    known = {"class_names": CLASSES, "condition_keys": ("label", "text")} if labels else {}
    return ClipSpec(frames, side, side, fps=8.0, **known)


@torch.no_grad()
def shaken(module: nn.Module) -> nn.Module:
    """The module with weights that are nowhere zero, so that nothing is equal by chance."""
    torch.manual_seed(5)
    for value in module.parameters():
        value.add_(torch.randn_like(value) * 0.1)
    return module


def unet(channels=3, **changes):
    arguments = {"dim": 8, "dim_mults": (1, 2), "channels": channels, "attn_heads": 2, "attn_dim_head": 8}
    torch.manual_seed(0)
    return Unet3D(**(arguments | changes))


def vdm(clip=None, labels=False, **changes):
    arguments = {
        "denoiser": unet(cond_dim=4 if labels else None),
        "conditioner": LabelEmbedding(4) if labels else None,
        "diffusion": GaussianDiffusion(prediction="v"),
        "sampler": DDIM(3, eta=1.0),
        "extension": Extension(context=2, weight=1.0),
    }
    return VDM(clip or spec(labels=labels), **(arguments | changes)).eval()


def frame_autoencoder(clip=None, **changes):
    torch.manual_seed(1)
    network = FrameAutoencoder(2, (8, 8), 1, norm_num_groups=4)
    return VideoAutoencoder(clip or spec(side=16), shaken(network), **changes).eval()


def clip_autoencoder(clip=None, **changes):
    torch.manual_seed(1)
    network = Autoencoder3D(16, (2, 2, 2), z_channels=2, embed_dim=2)
    return VideoAutoencoder(clip or spec(side=16), shaken(network), **changes).eval()


def lvdm_unet(**changes):
    arguments = {
        "in_channels": 2,
        "model_channels": 32,
        "out_channels": 2,
        "num_res_blocks": 1,
        "attention_resolutions": (2,),
        "channel_mult": (1, 1),
        "num_heads": 4,
        "use_scale_shift_norm": True,
        "padding_t": 0,
        "temporal_length": 3,
        "use_relative_position": True,
    }
    torch.manual_seed(2)
    return shaken(LVDMUnet(**(arguments | changes)))


def video_ldm(codec=None, **changes):
    codec = codec or frame_autoencoder()
    arguments = {
        "denoiser": unet(channels=2),
        "codec": codec,
        "diffusion": GaussianDiffusion(prediction="v", threshold=Threshold("none")),
        "sampler": DDIM(3, eta=1.0),
        "extension": Extension(context=2, weight=1.0),
        "latent_scale": 1.0,
    }
    return VideoLDM(codec.clip_spec, **(arguments | changes)).eval()


def export(model, folder):
    """Writes a model as an export folder, which `vgen sample` opens."""
    header = {**describe_model(model, model.clip_spec, None), "stage": "diffusion", "clips": 0}
    folder.mkdir(parents=True, exist_ok=True)
    write_export(Export(header, model.state_dict()), folder)
    return folder
