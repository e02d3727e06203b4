"""Checkpoints of video-diffusion-pytorch -> our state dicts.

Its Trainer's files hold `step`, `model`, `ema` (state dicts of the diffusion class, the U-Net under `denoise_fn.`) and
`scaler`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from vgen.models.vdm.networks import Unet3D
from vgen.weights.factorised_unet import UNET_KEYS_WITH_FREQUENCIES, common_unet_config, denoiser_state
from vgen.weights.keymap import KeyReport


def unet_state(checkpoint: Mapping[str, Any], part: Literal["model", "ema"] = "model") -> dict[str, Tensor]:
    """A Trainer's file (or the diffusion class's state dict) -> the official U-Net names, without `denoise_fn.`.

    Raises:
        UserError: It is no such file.
    """
    return denoiser_state(checkpoint.get(part, checkpoint), "a checkpoint of video-diffusion-pytorch")


def load_unet(unet: Unet3D, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads official U-Net weights; see `KeyMap.load`."""
    return UNET_KEYS_WITH_FREQUENCIES.load(unet, state, where)


def unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `Unet3D` for official U-Net weights: all is read from names and shapes.

    GroupNorm's number of groups cannot be read; it is the official default 8.

    Raises:
        KeyError: The weights are another network's.
    """
    return common_unet_config(state) | {
        "out_dim": int(state["final_conv.1.weight"].shape[0]),
        "norm": norm_of(state),
    }


def norm_of(state: Mapping[str, Tensor]) -> Literal["rms", "group"]:
    """Which normalisation the residual blocks of official weights have: it changed with version 0.7.0."""
    return "rms" if any(key.endswith("block1.norm.gamma") for key in state) else "group"
