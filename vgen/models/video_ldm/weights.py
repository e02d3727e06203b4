"""LVDM's released checkpoints -> our state dicts.

A file is a Lightning checkpoint. The auto-encoder's holds `encoder.*`, `decoder.*`, `quant_conv.*`,
`post_quant_conv.*` and `loss.*`; the diffusion model's `model.diffusion_model.*`, its average under `model_ema.*`
(names without dots), the auto-encoder under `first_stage_model.*`, and the schedule.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vgen.errors import UserError
from vgen.models.video_ldm.networks import Autoencoder3D
from vgen.weights.factorised_unet import count_indices
from vgen.weights.keymap import KeyMap, KeyReport, Rule, subset

_CONVS = r"conv_first|conv_out|conv_shortcut|down|conv1|conv2|final_block\.2|quant_conv|post_quant_conv"
#: The same-pad convolutions list their weight twice: as `<name>.conv.weight` and as `<name>.weight`.
AUTOENCODER_KEYS = KeyMap([Rule(rf"(^|\.)({_CONVS})\.weight$")])
UNET_KEYS = KeyMap([])  # our names are the release's

#: Arguments of the official U-Net that its released form does not use, or that only say how it is computed.
_UNUSED = ("image_size", "dims", "use_fp16", "num_heads_upsample", "transformer_depth", "legacy")


def state_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict of a Lightning checkpoint, or the mapping itself."""
    state = checkpoint.get("state_dict", checkpoint)
    return state if isinstance(state, Mapping) else {}


def autoencoder_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The auto-encoder's weights of either kind of file.

    Raises:
        UserError: It holds none.
    """
    state = state_of(checkpoint)
    state = subset(state, "first_stage_model.") or state
    weights = subset(state, ("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
    if not weights:
        raise UserError("not an LVDM auto-encoder: no `encoder.*` in it")
    return weights


def unet_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The U-Net's weights of a diffusion file.

    Raises:
        UserError: It holds none.
    """
    weights = subset(state_of(checkpoint), "model.diffusion_model.")
    if not weights:
        raise UserError("not an LVDM diffusion checkpoint: no `model.diffusion_model.*` in it")
    return weights


def averaged_state(checkpoint: Mapping[str, Any], names: list[str]) -> dict[str, Tensor] | None:
    """The averaged U-Net weights of these names; None where the file has none."""
    shadow = subset(state_of(checkpoint), "model_ema.")
    kept = {name: "diffusion_model" + name.replace(".", "") for name in names}
    return {name: shadow[key] for name, key in kept.items()} if shadow.keys() >= set(kept.values()) else None


def load(network: nn.Module, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads official weights into an `Autoencoder3D` or an `LVDMUnet`; see `KeyMap.load`."""
    keys = AUTOENCODER_KEYS if isinstance(network, Autoencoder3D) else UNET_KEYS
    return keys.load(network, state, where)


def unet_arguments(official: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `LVDMUnet` for those of the official class, as its configurations have them.

    Raises:
        UserError: It has cross-attention or classes, which no unconditional release has.
    """
    arguments = {key: value for key, value in official.items() if key not in _UNUSED}
    for name in ("use_temporal_transformer", "context_dim", "num_classes"):
        if arguments.pop(name, None):
            raise UserError(f"LVDM's U-Net with {name} is not one of the unconditional models", name)
    arguments.pop("ST_transformer_module", None)
    arguments.pop("ST_transformer_class", None)
    return arguments | {"checkpointing": arguments.pop("use_checkpoint", False)}


def unet_config(state: Mapping[str, Tensor], num_heads: int = 4) -> dict[str, Any]:
    """Arguments of `LVDMUnet` for official weights: read from names and shapes but for the heads of released models.

    Raises:
        KeyError: The weights are another network's.
    """
    width, channels, kernel_t = (int(n) for n in state["input_blocks.0.0.weight"].shape[:3])
    blocks = count_indices(state, r"input_blocks\.(\d+)\.")
    widths: list[int] = []
    counts: list[int] = [0]
    attention: set[int] = set()
    for i in range(1, blocks):
        if f"input_blocks.{i}.0.op.weight" in state:
            counts.append(0)
            continue
        counts[-1] += 1
        if counts[-1] == 1:
            widths.append(int(state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0]))
        if f"input_blocks.{i}.1.qkv_s.weight" in state:
            attention.add(2 ** (len(counts) - 1))
    film = state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0]
    table = state.get("middle_block.1.relative_position_k.embeddings_table")
    if table is not None:
        num_heads = int(state["middle_block.1.qkv_s.weight"].shape[1]) // int(table.shape[1])
    return {
        "in_channels": channels,
        "model_channels": width,
        "out_channels": int(state["out.2.weight"].shape[0]),
        "num_res_blocks": counts[0],
        "attention_resolutions": tuple(sorted(attention)),
        "channel_mult": tuple(each // width for each in widths),
        "num_heads": num_heads,
        "use_scale_shift_norm": bool(film),
        "kernel_size_t": kernel_t,
        "padding_t": kernel_t // 2,
        "temporal_length": None if table is None else int(table.shape[0]) // 2,
        "use_relative_position": table is not None,
    }


def autoencoder_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `Autoencoder3D` for official weights.

    Which axes a stage halves is in no shape: it is the released rule, time in the first two of three stages, and one
    stage fewer than space otherwise.

    Raises:
        KeyError: The weights are another network's.
    """
    first = state["encoder.conv_first.conv.weight"]
    stages = count_indices(state, r"encoder\.conv_blocks\.(\d+)\.")
    return {
        "n_hiddens": int(first.shape[0]),
        "downsample": (2 ** max(1, stages - 1), 2**stages, 2**stages),
        "z_channels": int(state["post_quant_conv.conv.weight"].shape[0]),
        "embed_dim": int(state["post_quant_conv.conv.weight"].shape[1]),
        "image_channel": int(first.shape[1]),
        "norm_type": "batch" if "encoder.final_block.0.running_mean" in state else "group",
    }
