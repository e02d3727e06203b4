"""Names and sizes in checkpoints of the public factorised 3D U-Net (video-diffusion-pytorch) and of its forks.

The official U-Net nests Residual(PreNorm(Rearrange(Attention))), one `fn` each; ours is one module. Its rotary
frequencies are listed in every temporal attention, which share them. The schedule around it is rebuilt.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vgen.errors import UserError
from vgen.weights.keymap import KeyMap, Rule, subset

SCHEDULE_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)

_RULES = [
    Rule(r"^module\.", ""),
    Rule(rf"^({'|'.join(SCHEDULE_BUFFERS)})$"),
    Rule(r"\.rotary_emb\.freqs$"),
    Rule(r"^denoise_fn\.", ""),
    Rule(r"(\.fn)+\.", "."),
]
UNET_KEYS = KeyMap(_RULES)
#: For networks that store their rotary frequencies.
UNET_KEYS_WITH_FREQUENCIES = KeyMap(
    [
        Rule(r"^(module\.)?(denoise_fn\.)?init_temporal_attn(\.fn)+\.rotary_emb\.freqs$", "rotary_emb.freqs"),
        *_RULES,
    ]
)


def denoiser_state(diffusion: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The U-Net's weights of the official diffusion class's state dict, by official names without `denoise_fn.`.

    Raises:
        UserError: There are none.
    """
    weights = subset({key.removeprefix("module."): value for key, value in diffusion.items()}, "denoise_fn.")
    if not weights:
        raise UserError(f"not {kind}: no `denoise_fn.*` in it")
    return weights


def count_indices(state: Mapping[str, Tensor], pattern: str) -> int:
    """Number of distinct indices that the one group of `pattern` takes over the keys."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def common_unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments that all networks of this form have, read from the official names and shapes.

    Raises:
        KeyError: The weights are another network's.
    """
    dim, channels, _, kernel, _ = state["init_conv.weight"].shape
    levels = count_indices(state, r"downs\.(\d+)\.")
    outputs = [int(state[f"downs.{i}.0.block1.proj.weight"].shape[0]) for i in range(levels)]
    heads = int(state["time_rel_pos_bias.relative_attention_bias.weight"].shape[1])
    hidden = int(state["init_temporal_attn.fn.fn.fn.to_qkv.weight"].shape[0]) // 3
    condition = int(state["downs.0.0.mlp.1.weight"].shape[1]) - 4 * int(dim)
    return {
        "dim": int(dim),
        "cond_dim": condition or None,
        "dim_mults": tuple(width // int(dim) for width in outputs),
        "channels": int(channels),
        "attn_heads": heads,
        "attn_dim_head": hidden // heads,
        "init_kernel_size": int(kernel),
        "use_sparse_linear_attn": any(re.match(r"downs\.\d+\.2\.fn\.", key) for key in state),
    }
