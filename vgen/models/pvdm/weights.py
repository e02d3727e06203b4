"""Official PVDM checkpoints -> our state dicts.

An autoencoder file is the state dict of ViTAutoencoder, a diffusion file that of DiffusionWrapper (`diffusion_model.`),
a loss file that of the criterion with LPIPS and both discriminators. Constants among them are rebuilt here: rotary
frequencies, an unused table of coordinates, and the zeros that stand for no condition.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vgen.errors import UserError
from vgen.weights.keymap import KeyMap, KeyReport, Rule, subset

AUTOENCODER_KEYS = KeyMap(
    [
        Rule(r"^module\.", ""),
        Rule(r"^coords$|\.frame_rot_emb\.inv_freqs$|\.image_rot_emb\.scales$"),
        Rule(r"^encoder\.to_patch_embedding\.", "to_tokens."),
        Rule(r"^(encoder|decoder)\.layers\.(\d+)\.0\.", r"\1.layers.\2.time."),
        Rule(r"^(encoder|decoder)\.layers\.(\d+)\.1\.", r"\1.layers.\2.space."),
        Rule(r"^(encoder|decoder)\.layers\.(\d+)\.2\.", r"\1.layers.\2.feed_forward."),
        Rule(r"^(xy|yt|xt)_quant_attn\.layers\.(\d+)\.0\.", r"projectors.\1.layers.\2.attention."),
        Rule(r"^(xy|yt|xt)_quant_attn\.layers\.(\d+)\.1\.", r"projectors.\1.layers.\2.feed_forward."),
        Rule(r"\.fn\.to_qkv\.", ".to_qkv."),
        Rule(r"\.fn\.to_out\.0\.", ".to_out."),
        Rule(r"\.fn\.net\.0\.", ".expand."),
        Rule(r"\.fn\.net\.3\.", ".contract."),
        Rule(r"^(xy|yt|xt)_token$", r"projectors.\1.token"),
        Rule(r"^(xy|yt|xt)_pos_embedding$", r"projectors.\1.positions"),
        Rule(r"^pre_(xy|yt|xt)\.", r"projectors.\1.to_plane."),
        Rule(r"^post_(xy|yt|xt)\.", r"lift.\1."),
        Rule(r"^to_pixel\.1\.", "to_pixel."),
    ]
)

UNET_KEYS = KeyMap(
    [
        Rule(r"^module\.", ""),
        Rule(r"^diffusion_model\.", ""),
        Rule(r"^zeros$"),
        Rule(r"^(input|output)_attns\.(\d+)\.", r"\1_blocks.\2.across."),
        Rule(r"^mid_attn\.", "middle_block.across."),
        Rule(r"^input_blocks\.0\.0\.", "input_blocks.0.layers.0."),
        Rule(r"^((?:input|output)_blocks\.\d+|middle_block)\.(\d+)\.", r"\1.layers.\2."),
        Rule(r"\.in_layers\.0\.", ".norm1."),
        Rule(r"\.in_layers\.2\.", ".conv1."),
        Rule(r"\.emb_layers\.1\.", ".embed."),
        Rule(r"\.out_layers\.0\.", ".norm2."),
        Rule(r"\.out_layers\.3\.", ".conv2."),
        Rule(r"\.skip_connection\.", ".skip."),
        Rule(r"\.op\.", ".conv."),
        Rule(r"^out\.0\.", "out_norm."),
        Rule(r"^out\.2\.", "out_conv."),
    ]
)

DISCRIMINATOR_KEYS = KeyMap(
    [Rule(r"^model(\d+)\.0\.", r"blocks.\1.conv."), Rule(r"^model(\d+)\.1\.", r"blocks.\1.norm.")]
)


def _without_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefix that DistributedDataParallel leaves."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def autoencoder_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """An autoencoder file's contents with the official names; 1x1 convolutions and tables have our shapes.

    Raises:
        UserError: It holds something else.
    """
    state = _without_module(checkpoint)
    if "encoder.to_patch_embedding.weight" not in state:
        raise UserError("not a PVDM autoencoder checkpoint: no `encoder.to_patch_embedding.weight` in it")
    for key, value in state.items():
        if re.fullmatch(r"(pre|post)_(xy|yt|xt)\.weight", key):
            state[key] = value.flatten(1)
        elif re.fullmatch(r"(xy|yt|xt)_token", key):
            state[key] = value.flatten()
        elif re.fullmatch(r"(xy|yt|xt)_pos_embedding", key):
            state[key] = value.flatten(0, 1)
    return state


def unet_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """A diffusion file's contents with the official names, without `diffusion_model.`; attention has our shapes.

    Raises:
        UserError: It holds something else.
    """
    state = subset(_without_module(checkpoint), "diffusion_model.")
    if not state:
        raise UserError("not a PVDM diffusion checkpoint: no `diffusion_model.*` in it")
    # 1D convolutions of kernel 1
    return {k: v.flatten(1) if re.search(r"\.(qkv|proj_out)\.weight$", k) else v for k, v in state.items()}


def discriminator_state(checkpoint: Mapping[str, Any], dims: int) -> dict[str, Tensor]:
    """One discriminator of a loss file (dims 2 or 3), with the official names."""
    return subset(_without_module(checkpoint), f"discriminator_{dims}d.")


def discriminator_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `PatchDiscriminator`, but for its dims, for weights of `discriminator_state`."""
    first = state["model0.0.weight"]
    return {
        "channels": int(first.shape[0]),
        "layers": _depth(state, r"model(\d+)\.0\.") - 2,
        "num_channels": int(first.shape[1]),
    }


def load(keys: KeyMap, network: nn.Module, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads what one of the functions above returned; see `KeyMap.load`."""
    return keys.load(network, state, where)


def _depth(state: Mapping[str, Tensor], pattern: str) -> int:
    """Number of distinct indices that the one group of `pattern` takes over the keys."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def autoencoder_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `ViTAutoencoder` for weights of `autoencoder_state`; what no tensor shows is as released."""
    embedding, qkv = state["encoder.to_patch_embedding.weight"], state["encoder.layers.0.0.fn.to_qkv.weight"]
    pixel = state["to_pixel.1.weight"]
    dim_head = 2 * len(state["encoder.frame_rot_emb.inv_freqs"])
    return {
        "channels": int(embedding.shape[0]),
        "latent_channels": int(state["pre_xy.weight"].shape[0]),
        "depth": _depth(state, r"encoder\.layers\.(\d+)\."),
        "heads": int(qkv.shape[0]) // (3 * dim_head),
        "dim_head": dim_head,
        "patch_size": int(pixel.shape[-1]),
        "projector_depth": _depth(state, r"xy_quant_attn\.layers\.(\d+)\."),
        "projector_hidden": int(state["xy_quant_attn.layers.0.1.fn.net.0.weight"].shape[0]),
        "num_channels": int(pixel.shape[1]),
    }


def clip_size(state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Frames, height and width in pixels that an autoencoder was trained on, from its tables of positions."""
    side = int(state["to_pixel.1.weight"].shape[-1])
    frames, height, width = (int(state[f"{name}_pos_embedding"].shape[0]) - 1 for name in ("xy", "yt", "xt"))
    return frames, height * side, width * side


def unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `PlaneUNet` for weights of `unet_state`; what no tensor shows is as released (8 heads)."""
    base = int(state["time_embed.0.weight"].shape[1])
    out_channels, inputs = int(state["out.2.weight"].shape[0]), int(state["input_blocks.0.0.weight"].shape[1])
    blocks = _depth(state, r"output_blocks\.(\d+)\.")
    # the block at the end of each level but the last has something that doubles its sides behind the attention
    ends = [
        index
        for index in range(blocks)
        if len({k.split(".")[2] for k in state if re.match(rf"output_blocks\.{index}\.\d+\.(in_layers\.0|conv)\.", k)})
        > 1
    ]
    levels = len(ends) + 1
    res_blocks = blocks // levels - 1
    firsts = [1 + level * (res_blocks + 1) for level in range(levels)]
    widths = [int(state[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0]) for first in firsts]
    embed = int(state["input_blocks.1.0.emb_layers.1.weight"].shape[0])
    conditional = "zeros" in state or inputs == 2 * out_channels
    return {
        "in_channels": inputs // 2 if conditional else inputs,
        "out_channels": out_channels,
        "model_channels": base,
        "num_res_blocks": res_blocks,
        "attention_resolutions": tuple(
            2**level for level in reversed(range(levels)) if f"input_blocks.{firsts[level]}.1.qkv.weight" in state
        ),
        "channel_mult": tuple(width // base for width in widths),
        "use_scale_shift_norm": embed == 2 * widths[0],
        "resblock_updown": levels == 1 or f"input_blocks.{firsts[1] - 1}.0.in_layers.0.weight" in state,
        "conditional": conditional,
    }
