"""Cases of latent video diffusion: LVDM's U-Net and 3D auto-encoder."""

import torch

from parity.registry import case
from vgen.models.video_ldm import weights
from vgen.models.video_ldm.networks import Autoencoder3D, LVDMUnet


@case("video_ldm", "unet3d")
@torch.no_grad()
def unet3d(vector):
    network = LVDMUnet(**weights.unet_arguments(vector.constructor))
    weights.load(network, vector.tensors("param"), vector.name)
    inputs = vector.tensors("in")
    return {"eps": network.eval()(inputs["x"], inputs["t"])}


@case("video_ldm", "autoencoder3d")
@torch.no_grad()
def autoencoder3d(vector):
    arguments = dict(vector.constructor)
    assert arguments.pop("double_z", True)
    network = Autoencoder3D(**arguments)
    weights.load(network, vector.tensors("param"), vector.name)
    mean, log_variance = network.eval().encode(vector.tensors("in")["video"]).chunk(2, dim=1)
    return {"mean": mean, "logvar_raw": log_variance, "recon_of_mean": network.decode(mean)}
