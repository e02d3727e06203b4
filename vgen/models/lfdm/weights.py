"""Official LFDM and MRAA checkpoints -> our state dicts (report sections 6 of the family).

LFAE files hold `generator`, `region_predictor` and `bg_predictor`; MRAA files the same and an `avd_network` that LFDM
never uses. DM files hold `diffusion`: schedule buffers, which are rebuilt here, and `denoise_fn.*`.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from vgen.errors import UserError, did_you_mean
from vgen.models.lfdm.networks import LFAE, BackgroundConfig, FlowPredictorConfig, GeneratorConfig, Unet3D
from vgen.models.lfdm.networks.configs import RegionPredictorConfig
from vgen.weights.factorised_unet import UNET_KEYS, common_unet_config, count_indices, denoiser_state
from vgen.weights.keymap import KeyMap, KeyReport, Rule

LFAE_PARTS = ("generator", "region_predictor", "bg_predictor")
#: Our auto-encoder keeps the official names. `module.` is left by DataParallel.
LFAE_KEYS = KeyMap([Rule(r"^module\.", "")])

Preset = Literal["mug", "mhad", "natops"]
#: What no state dict shows: padding of the region heads (MRAA vox: 3, MRAA taichi: 0) and of the up-sampling
#: convolutions.
PRESETS: dict[str, dict[str, Any]] = {
    "mug": {"pad": 3, "padding_mode": "zeros"},
    "mhad": {"pad": 0, "padding_mode": "zeros"},
    "natops": {"pad": 0, "padding_mode": "reflect"},
}


def preset_values(preset: str) -> dict[str, Any]:
    """The settings of a released configuration that cannot be read from its weights."""
    if preset not in PRESETS:
        raise UserError(
            f"unknown LFDM preset {preset!r}, expected one of {', '.join(PRESETS)}", hint=did_you_mean(preset, PRESETS)
        )
    return PRESETS[preset]


def lfae_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """An LFAE or MRAA file's contents -> one state dict with the official names under the prefix of each part."""
    lost = [part for part in LFAE_PARTS if part not in checkpoint]
    if lost:
        raise UserError(
            f"not an LFAE checkpoint: {', '.join(lost)} missing among {', '.join(sorted(map(str, checkpoint)))}",
            hint="the diffusion model's file holds no auto-encoder",
        )
    return {f"{part}.{LFAE_KEYS.rename(key)}": value for part in LFAE_PARTS for key, value in checkpoint[part].items()}


def load_lfae(lfae: LFAE, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads what `lfae_state` returned; see `KeyMap.load`."""
    return LFAE_KEYS.load(lfae, state, where)


def unet_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """A DM file's contents (or its `diffusion` entry) -> the official U-Net names, without `denoise_fn.`."""
    return denoiser_state(checkpoint.get("diffusion", checkpoint), "an LFDM diffusion checkpoint")


def load_unet(unet: Unet3D, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads official U-Net weights, with or without `denoise_fn.` and schedule buffers; see `KeyMap.load`."""
    return UNET_KEYS.load(unet, state, where)


def lfae_config(state: Mapping[str, Tensor], preset: Preset | str = "mug") -> dict[str, Any]:
    """Arguments of `LFAE` for a state dict of `lfae_state`, read from shapes where these show them.

    Widths and depths are read from the tensors; what no tensor shows is the released one: `pad` of the preset, scale
    factors from the anti-alias kernels, the rest the defaults of the configuration classes.
    """
    first = state["generator.first.conv.weight"]
    regions = state["region_predictor.regions.weight"]
    channels = int(first.shape[1])
    flow = "generator.pixelwise_flow_predictor."

    def hourglass(prefix: str, out: int, inputs: int) -> dict[str, Any]:
        down = rf"{re.escape(prefix)}encoder\.down_blocks\.(\d+)\."
        depth = count_indices(state, down)
        widths = [int(state[f"{prefix}encoder.down_blocks.{i}.conv.weight"].shape[0]) for i in range(depth)]
        return {"block_expansion": out - inputs, "num_blocks": depth, "max_features": max(widths)}

    def scale(key: str) -> float:
        # side 2 round(4 (1/s - 1)/2) + 1 of the kernel, for 1/s a whole number
        return 1.0 if key not in state else 1 / (1 + (int(state[key].shape[-1]) - 1) // 4)

    mask = state[f"{flow}mask.weight"]
    flow_inputs = int(state[f"{flow}hourglass.encoder.down_blocks.0.conv.weight"].shape[1])
    down_blocks = count_indices(state, r"generator\.down_blocks\.(\d+)\.")
    top = int(state[f"generator.down_blocks.{down_blocks - 1}.conv.weight"].shape[0])
    flow_config = FlowPredictorConfig(
        **hourglass(f"{flow}hourglass.", int(mask.shape[1]), flow_inputs),
        scale_factor=scale(f"{flow}down.weight"),
        use_deformed_source=flow_inputs > int(mask.shape[0]),
        estimate_occlusion_map=f"{flow}occlusion.weight" in state,
    )
    numbers = {2: "shift", 6: "affine", 8: "perspective"}
    background: dict[str, Any] = {"bg_type": "zero"}
    if "bg_predictor.fc.weight" in state:
        fc = state["bg_predictor.fc.weight"]
        background = {
            "bg_type": numbers[int(fc.shape[0])],
            "block_expansion": int(state["bg_predictor.encoder.down_blocks.0.conv.weight"].shape[0]) // 2,
            "num_blocks": count_indices(state, r"bg_predictor\.encoder\.down_blocks\.(\d+)\."),
            "max_features": int(fc.shape[1]),
        }
    return {
        "num_regions": int(regions.shape[0]),
        "num_channels": channels,
        "region_predictor": RegionPredictorConfig(
            **hourglass("region_predictor.predictor.", int(regions.shape[1]), channels),
            scale_factor=scale("region_predictor.down.weight"),
            pca_based="region_predictor.jacobian.weight" not in state,
            pad=preset_values(preset)["pad"],
        ),
        "bg_predictor": BackgroundConfig(**background),
        "generator": GeneratorConfig(
            block_expansion=int(first.shape[0]),
            max_features=top,
            num_down_blocks=down_blocks,
            num_bottleneck_blocks=count_indices(state, r"generator\.bottleneck\.r(\d+)\."),
            flow_predictor=flow_config,
        ),
    }


def unet_config(state: Mapping[str, Tensor], preset: Preset | str = "mug") -> dict[str, Any]:
    """Arguments of `Unet3D` for official U-Net weights (`unet_state`).

    Widths, levels, heads, deconvolution or nearest up-sampling, and a learned null embedding are read from the keys.
    """
    upsamplers = [key for key in state if re.match(r"ups\.\d+\.4\.", key)]
    return common_unet_config(state) | {
        "out_grid_dim": int(state["final_conv.1.weight"].shape[0]),
        "out_conf_dim": int(state["occlusion_map.1.weight"].shape[0]),
        "learn_null_cond": "null_cond_emb" in state,
        "use_deconv": not any(".4.1." in key for key in upsamplers),
        "padding_mode": preset_values(preset)["padding_mode"],
    }
