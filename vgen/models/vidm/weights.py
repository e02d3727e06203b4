"""Official VIDM and SpyNet checkpoints -> our state dicts (report sections 3 and 10 of the family)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vgen.errors import UserError
from vgen.models.vidm.networks import Layout, MotionGenerator
from vgen.nn.flow import SpyNet
from vgen.weights.keymap import KeyMap, KeyReport, Rule
from vgen.weights.unpickle import read_official

#: Both published layouts: basic_module.<level>.basic_module.<i>.conv of mmediting and netBasic.<level>.netBasic.<2i> of
#: sniklaus, whose released files say moduleBasic.
_SPYNET_RULES = [
    Rule(r"(^|\.)(mean|std)$"),
    Rule(r"(^|\.)basic_module\.(\d+)\.basic_module\.(\d+)\.conv\.", r"\1levels.\2.convs.\3."),
    *(
        Rule(rf"(^|\.)(?:net|module)Basic\.(\d+)\.(?:net|module)Basic\.{2 * i}\.", rf"\1levels.\2.convs.{i}.")
        for i in range(5)
    ),
]
SPYNET_KEYS = KeyMap([Rule(r"^(module|network)\.", ""), *_SPYNET_RULES])  # `network.`: of a converted file

#: The release's names of a residual block's second half come first: both it and the network's end have an `out`.
#: `coords` and `new_coords` are caches of coordinates, of the first batch's size. DDP leaves `module.`.
VIDM_KEYS = KeyMap(
    [
        Rule(r"^module\.", ""),
        Rule(r"(^|\.)(new_)?coords$"),
        Rule(r"^spynet\.", "flow."),
        *_SPYNET_RULES,
        Rule(r"(^|\.)linear_0\.", r"\1norm.phase."),
        Rule(r"(^|\.)linear_1\.0\.", r"\1norm.hidden."),
        Rule(r"(^|\.)linear_1\.2\.", r"\1norm.modulation."),
        Rule(r"(^|\.)out_norm\.", r"\1norm.norm."),
        Rule(r"(^|\.)out_rest\.1\.", r"\1conv."),
        Rule(r"(^|\.)out\.0\.", r"\1out_norm."),
        Rule(r"(^|\.)out\.2\.", r"\1out_conv."),
        Rule(r"(^|\.)emb_layers\.", r"\1out."),
        Rule(r"(^|\.)in_layers\.0\.", r"\1norm."),
        Rule(r"(^|\.)in_layers\.2\.", r"\1conv."),
        Rule(r"(^|\.)skip_connection\.", r"\1skip."),
        Rule(r"(^|\.)proj_out\.", r"\1proj."),
        Rule(r"(^|\.)op\.", r"\1conv."),
    ]
)


def load_spynet(network: SpyNet, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads SpyNet weights in either published layout; see `KeyMap.load`."""
    return SPYNET_KEYS.load(network, state, where)


def read_spynet(network: SpyNet, path: str) -> None:
    """Loads SpyNet weights from an official file or a converted one.

    Raises:
        UserError: There is no such file, or it holds other weights.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(
            "no such SpyNet weights",
            path,
            "spynet_20210409-c6c1bd09.pth of mmediting, or network-sintel-final.pytorch of pytorch-spynet; for "
            "non-commercial research; null trains the network from scratch",
        )
    load_spynet(network, read_official(file / "model.safetensors" if file.is_dir() else file), path)


def motion_state(checkpoint: Mapping[str, Any], averaged: bool = True) -> dict[str, Tensor]:
    """The motion generator's weights out of a checkpoint of the release, averaged or raw.

    Raises:
        UserError: There are none in it.
    """
    key = "ema_state_dict" if averaged else "state_dict"
    state = checkpoint.get(key)
    if not isinstance(state, Mapping) or not any("emb_layers.linear_0" in name for name in state):
        raise UserError(
            f"not a VIDM checkpoint: no {key!r} with positional group norms in it",
            hint="the release holds {iters, state_dict, ema_state_dict, optimizer}",
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_motion(network: MotionGenerator, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads what `motion_state` returned; see `KeyMap.load`."""
    return VIDM_KEYS.load(network, state, where)


def motion_layout(state: Mapping[str, Tensor], head_channels: int = 64, video_timesteps: int = 128) -> Layout:
    """The layout of official weights, which have no `module.` in front.

    Levels are read from the up path: each but the finest ends with a layer that doubles the size, a residual block
    behind the first or a lone convolution.

    Args:
        state: What `motion_state` returned.
        head_channels: Channels of an attention head, which no tensor shows; so with the next, and T = 1000.
        video_timesteps: Frames V that the coordinate n runs over.
    """
    up = "unet.output_blocks"
    count = 1 + max(int(match[1]) for key in state if (match := re.match(rf"{up}\.(\d+)\.", key)))
    doubling = [r"[1-9]\.in_layers\.0\.weight", r"\d\.conv\.weight"]
    ends = [i for i in range(count) if _has(state, rf"{up}\.{i}\.({'|'.join(doubling)})")]
    per_level = (ends[0] if ends else count - 1) + 1
    firsts = [f"{up}.{i}" for i in reversed(range(0, count, per_level))]
    base = int(state["unet.input_blocks.0.0.weight"].shape[0])
    return Layout(
        model_channels=base,
        num_res_blocks=per_level - 1,
        attention_resolutions=tuple(2**i for i, first in enumerate(firsts) if f"{first}.1.qkv.weight" in state),
        channel_mult=tuple(int(state[f"{first}.0.in_layers.2.weight"].shape[0]) // base for first in firsts),
        num_head_channels=head_channels,
        resblock_updown=not _has(state, rf"{up}\.\d+\.\d\.conv\.weight"),
        video_timesteps=video_timesteps,
    )


def _has(state: Mapping[str, Tensor], pattern: str) -> bool:
    return any(re.fullmatch(pattern, key) for key in state)
