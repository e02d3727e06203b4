"""Cases of MoCoGAN: the generator with its motion path, and all five discriminators."""

import torch
import torch.nn.functional as F

from parity.registry import Vector, case
from vgen.models.mocogan.networks import Discriminator, VideoGenerator
from vgen.models.mocogan.weights import GENERATOR_KEYS, discriminator_keys
from vgen.video import ClipSpec


@case("mocogan", "generator")
@torch.no_grad()
def generator(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    network = VideoGenerator(
        arguments["dim_z_content"], arguments["dim_z_motion"], arguments["dim_z_category"], arguments.get("ngf", 64)
    )
    network.prepare(ClipSpec(arguments["video_length"], 64, 64, arguments["n_channels"]))
    GENERATOR_KEYS.load(network, vector.tensors("param"), vector.name)
    network.eval()
    noise = inputs["eps"].transpose(0, 1)
    category = inputs.get("category") if arguments["dim_z_category"] else None
    codes = network.codes(inputs["z_content"], inputs["h0"], noise, category)
    return {
        "z_motion": network.motions(inputs["h0"], noise).flatten(0, 1),
        "z": codes.flatten(0, 1),
        "video": network(inputs["z_content"], inputs["h0"], noise, category),
    }


def judged(vector: Vector, dims: int, patches: bool) -> tuple[torch.Tensor, int]:
    """All outputs (N, outputs, ...), and how many of them the official class takes for scores."""
    arguments, x = vector.constructor, vector.tensors("in")["x"]
    scores, categories = arguments.get("n_output_neurons", 1), arguments.get("dim_categorical", 0)
    # an official discriminator may have more than one output for the score; ours are further categories then
    network = Discriminator(dims, patches, arguments.get("ndf", 64), scores + categories - 1)
    frames = x.shape[2] if dims == 3 else 1
    network.prepare(ClipSpec(frames, *x.shape[-2:], arguments["n_channels"]))
    discriminator_keys(network).load(network, vector.tensors("param"), vector.name)
    first, others = network.eval()(x)
    return torch.cat((first[:, None], others), dim=1), scores


@torch.no_grad()
def plain(vector, dims, patches):
    outputs, _ = judged(vector, dims, patches)
    return {"logits": outputs.squeeze()}


case("mocogan", "imagediscriminator")(lambda vector: plain(vector, 2, False))
case("mocogan", "patchimagediscriminator")(lambda vector: plain(vector, 2, True))
case("mocogan", "videodiscriminator")(lambda vector: plain(vector, 3, False))
case("mocogan", "patchvideodiscriminator")(lambda vector: plain(vector, 3, True))


@case("mocogan", "categoricalvideodiscriminator")
@torch.no_grad()
def categorical(vector):
    outputs, scores = judged(vector, 3, False)
    logits, named = outputs[:, :scores], outputs[:, scores:]
    return {
        "logits": logits,
        "categ": named,
        "loss_real": F.softplus(-logits).mean(),
        "loss_fake": F.softplus(logits).mean(),
        "loss_categ": F.cross_entropy(named, vector.tensors("in")["categories"]),
    }
