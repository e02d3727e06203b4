"""State dicts in the layouts of other projects' files, made from networks of ours."""

import re

import torch

from vgen.diffusion import GaussianDiffusion
from vgen.weights.factorised_unet import SCHEDULE_BUFFERS

_ATTENTION = r"^(init_temporal_attn|mid_\w+_attn|(?:downs|ups)\.\d+\.[23])\.(norm|to_qkv|to_out)"
_SAME_PAD = r"\.(conv_first|conv_out|down|conv1|conv2|2|quant_conv|post_quant_conv)\.conv\.weight$"


def vdm_state(unet, steps=1000):
    """What video-diffusion-pytorch's diffusion class saves: schedule, and the U-Net with its nesting."""
    schedule = GaussianDiffusion(steps=steps).schedule
    state = {name: getattr(schedule, name).clone() for name in SCHEDULE_BUFFERS}
    own = unet.state_dict()
    frequencies = own.pop("rotary_emb.freqs")
    for key, value in own.items():
        if match := re.match(_ATTENTION, key):
            linear = re.search(r"s\.\d+\.2$", match[1])
            inner = "fn" if match[2] == "norm" else "fn.fn" if linear else "fn.fn.fn"
            if match[2] == "to_qkv" and not linear and "spatial" not in match[1]:
                state[f"denoise_fn.{match[1]}.{inner}.rotary_emb.freqs"] = frequencies
            key = key.replace(match[0], f"{match[1]}.{inner}.{match[2]}")
        state[f"denoise_fn.{key}"] = value
    return state


def lvdm_autoencoder_state(network, prefix=""):
    """What LVDM's auto-encoder saves: same-pad convolutions list their weight twice; a loss stands beside it."""
    state = {}
    for key, value in network.state_dict().items():
        state[prefix + key] = value
        if re.search(_SAME_PAD, f".{key}"):
            state[prefix + key.replace(".conv.weight", ".weight")] = value
    return state | {f"{prefix}loss.logvar": torch.zeros(())}


def lvdm_file(unet, autoencoder, scale=None):
    """A diffusion checkpoint of LVDM."""
    schedule = GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0155)).schedule
    state = {f"model.diffusion_model.{key}": value for key, value in unet.state_dict().items()}
    averaged = {
        f"model_ema.diffusion_model{key.replace('.', '')}": value * 0.5 for key, value in unet.state_dict().items()
    }
    state |= averaged | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    state |= lvdm_autoencoder_state(autoencoder, "first_stage_model.")
    state |= {"betas": schedule.betas, "alphas_cumprod": schedule.alphas_cumprod}
    if scale is not None:
        state["scale_factor"] = torch.tensor(scale)
    return {"epoch": 3, "global_step": 12, "state_dict": state}
