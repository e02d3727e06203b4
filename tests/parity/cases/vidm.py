"""Cases of VIDM: its blocks and U-Nets, and SpyNet in both published variants."""

from typing import Any

import torch
from torch import Tensor, nn

from parity.registry import Vector, case
from vgen.models.vidm import weights
from vgen.models.vidm.networks import Encoder2d, Layout, MotionGenerator, UNet2d
from vgen.models.vidm.networks.blocks import PositionedConv, ResBlock
from vgen.models.vidm.networks.unet import Positions
from vgen.nn.flow import SpyNet

# Accepted by the official classes, and without effect in them.
INERT = {"image_size", "dropout", "use_scale_shift_norm", "use_checkpoint", "use_fp16", "spynet_pretrained", "dims"}
INERT |= {"in_channels", "out_channels", "num_classes"}


def layout(arguments: dict[str, Any]) -> Layout:
    """Ours for the official arguments; the official defaults are guided diffusion's."""
    defaults = {"channel_mult": (1, 2, 4, 8), "num_heads": 1, "num_head_channels": -1, "resblock_updown": False}
    given = defaults | {key: value for key, value in arguments.items() if key not in INERT}
    if given["num_head_channels"] == -1:
        given["num_head_channels"] = None
    return Layout(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


def load(network: nn.Module, vector: Vector) -> nn.Module:
    weights.VIDM_KEYS.load(network, vector.tensors("param"), vector.name)
    return network.eval()


def positions(arguments: dict[str, Any], inputs: dict[str, Tensor]) -> Any:
    steps = arguments.get("diffusion_timesteps", arguments.get("diffusion_steps", 1000))
    axes = Layout(diffusion_timesteps=steps, video_timesteps=arguments["video_timesteps"])
    return Positions(axes)(inputs["dt"], inputs["vt"])


@case("vidm", "posgn")
@torch.no_grad()
def posgn(vector):
    inputs = vector.tensors("in")
    block = load(PositionedConv(vector.constructor["hidden_size"]), vector)
    return {"y": block(inputs["x"], positions(vector.constructor, inputs))}


@torch.no_grad()
def resblock(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    direction = "down" if arguments.get("down") else "up" if arguments.get("up") else None
    block = ResBlock(arguments["channels"], arguments.get("out_channels"), direction)
    return {"y": load(block, vector)(inputs["x"], positions(arguments, inputs))}


for _target in ("resblock_plain", "resblock_down", "resblock_up"):
    case("vidm", _target)(resblock)


@case("vidm", "residual_encoder")
@torch.no_grad()
def residual_encoder(vector):
    inputs = vector.tensors("in")
    network = load(Encoder2d(vector.constructor["in_channels"], layout(vector.constructor)), vector)
    maps = network(inputs["x"], inputs["dt"], inputs["vt"])
    return {f"block{i}": value for i, value in enumerate(maps)}


@case("vidm", "unet")
@torch.no_grad()
def unet(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    network = load(UNet2d(arguments["in_channels"], arguments["out_channels"], layout(arguments)), vector)
    return {"y": network(inputs["x"], inputs["dt"], inputs["vt"])}


@case("vidm", "complex_unet")
@torch.no_grad()
def complex_unet(vector):
    arguments, inputs, stored = vector.constructor, vector.tensors("in"), vector.tensors("param")
    channels = arguments["in_channels"]
    network = MotionGenerator(
        layout(arguments), channels, SpyNet(), learned_variance=arguments["out_channels"] == 2 * channels
    )
    for name in list(stored):  # the file stores the first of six equal levels
        if name.startswith("spynet.basic_module.0."):
            for level in range(1, 6):
                stored.setdefault(name.replace("basic_module.0.", f"basic_module.{level}.", 1), stored[name])
    weights.load_motion(network, stored, vector.name)
    network.eval()
    flow = network.motion(inputs["x_0"], inputs["x_mins_1"])
    y = network(inputs["x"], inputs["dt"], inputs["vt"], inputs["x_0"], flow)
    return {"y": y, "flow": flow}


@case("vidm", "spynet_mmedit")
@torch.no_grad()
def spynet_mmedit(vector):
    inputs, network = vector.tensors("in"), SpyNet("mmediting")
    weights.load_spynet(network, vector.tensors("param"), vector.name)
    return {"flow": network(inputs["ref"], inputs["supp"])}


@case("vidm", "spynet_sniklaus")
@torch.no_grad()
def spynet_sniklaus(vector):
    inputs, stored = vector.tensors("in"), vector.tensors("param")
    levels = {name.split(".")[1] for name in stored}  # the file stores those that its image uses
    network = SpyNet("sniklaus", levels=max(6, len(levels)))
    renamed, _ = weights.SPYNET_KEYS.convert(stored)
    unused = {name: value for name, value in network.state_dict().items() if name.split(".")[1] not in levels}
    network.load_state_dict(renamed | unused)
    for level in list(network.levels)[len(levels) :]:
        level.forward = None  # a call would be an error
    return {"flow": network(inputs["one"], inputs["two"])}
