"""Cases of TGAN: both generators, the critic, and what is done to its weights."""

import torch

from parity.registry import Vector, case
from vgen.losses.adversarial import generator_loss, judgement_losses
from vgen.losses.regularisers import clip_norm_scales, clip_singular_values
from vgen.models.tgan import weights
from vgen.models.tgan.networks import Critic, FrameSeedGenerator, ImageGenerator
from vgen.video import ClipSpec


def load(network, keys, vector: Vector):
    keys.load(network, weights.with_counters(vector.tensors("param")), vector.name)
    return network.eval()


def shifts(vector: Vector, norm: str) -> bool:
    """Whether the norms of this official class add something: its name says so, and so do its weights."""
    return f"{norm}/beta" in vector.tensors("param")


@case("tgan", "frame_seed_generator")
@torch.no_grad()
def frame_seed_generator(vector):
    arguments = vector.constructor
    sizes = (arguments["z_slow_dim"], arguments["z_fast_dim"], arguments["n_frames"])
    network = load(FrameSeedGenerator(*sizes, shifts(vector, "bn0")), weights.SEED_KEYS, vector)
    return {"z_fast": network(vector.tensors("in")["z_slow"])}


@case("tgan", "video_generator")
@torch.no_grad()
def video_generator(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    base = (arguments.get("bottom_width", 4),) * 2
    sizes = (arguments["z_slow_dim"], arguments["z_fast_dim"], base, arguments.get("conv_ch", 512))
    network = load(ImageGenerator(*sizes, arguments["out_channels"]), weights.IMAGE_KEYS, vector)
    fast = inputs["z_fast"].transpose(1, 2)
    slow = inputs["z_slow"][:, None].expand(-1, fast.shape[1], -1)
    frames = network(slow.flatten(0, 1), fast.flatten(0, 1))
    return {"video": frames.unflatten(0, fast.shape[:2]).transpose(1, 2)}


@case("tgan", "video_discriminator")
@torch.no_grad()
def video_discriminator(vector):
    arguments, x = vector.constructor, vector.tensors("in")["x"]
    side = 16 * arguments.get("top_width", 4)
    network = Critic(arguments.get("mid_ch", 64), shifts(vector, "bn1"))
    network.prepare(ClipSpec(x.shape[2], side, side, arguments["in_channels"]))
    load(network, weights.CRITIC_KEYS, vector)
    score = network(x)
    return {
        "score": score,
        "score_train_mode": network.train()(x),
        "loss_dis_fake_term": judgement_losses(score, score, "wgan")[1],
        "loss_gen": generator_loss(score, "wgan"),
    }


@case("tgan", "singular_value_clipping")
def singular_value_clipping(vector):
    inputs = vector.tensors("in")
    outputs = {"bn_gamma": clip_norm_scales(inputs.pop("bn_gamma"), inputs.pop("bn_avg_var"))}
    for name, weight in inputs.items():
        outputs[name] = clip_singular_values(weight)
        outputs[name.replace("_W", "_sv_before")] = torch.linalg.svdvals(weight.flatten(1))
    return outputs
