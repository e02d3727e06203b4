"""Official VideoGPT checkpoints -> our state dicts.

Both stages are Lightning checkpoints: a state dict and an `argparse.Namespace` of arguments. That of a prior holds its
VQ-VAE too (`vqvae.`), and for full attention a mask per layer, which is rebuilt here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.weights.keymap import KeyMap, KeyReport, Rule, subset

_PROJECTIONS = (
    Rule(r"\.w_qs\.", ".query."),
    Rule(r"\.w_ks\.", ".key."),
    Rule(r"\.w_vs\.", ".value."),
)

VQVAE_KEYS = KeyMap(
    [
        Rule(r"^encoder\.convs\.", "down."),
        Rule(r"^encoder\.conv_last\.", "down_last."),
        Rule(r"^(encoder|decoder)\.res_stack\.", r"\1_blocks."),
        Rule(r"^decoder\.convts\.", "up."),
        Rule(r"^pre_vq_conv\.", "to_latent."),
        Rule(r"^post_vq_conv\.", "from_latent."),
        Rule(r"^(\w+_blocks\.\d+)\.block\.", r"\1.layers."),
        Rule(r"\.attn_w\.", ".width."),
        Rule(r"\.attn_h\.", ".height."),
        Rule(r"\.attn_t\.", ".time."),
        *_PROJECTIONS,
        Rule(r"\.(width|height|time)\.fc\.", r".\1.out."),
        Rule(r"^codebook\.N$", "codebook.counts"),
        Rule(r"^codebook\.z_avg$", "codebook.sums"),
    ]
)

PRIOR_KEYS = KeyMap(
    [
        Rule(r"\.attn\.attn\."),
        Rule(r"^attn_stack\.", ""),
        Rule(r"^fc_in\.", "embed."),
        Rule(r"^fc_out\.", "logits."),
        Rule(r"^right_shift\.sos$", "start"),
        Rule(r"^pos_embd\.emb\.d_", "positions.axes."),
        Rule(r"^cond_pos_embd\.emb\.d_", "condition_positions.axes."),
        Rule(r"^attn_nets\.", "blocks."),
        Rule(r"\.pre_attn_norm\.", ".norm."),
        Rule(r"\.pre_enc_norm\.", ".condition_norm."),
        Rule(r"\.pre_fc_norm\.", ".mlp_norm."),
        Rule(r"\.attn\.", ".attention.projections."),
        Rule(r"\.enc_attn\.", ".condition.projections."),
        *_PROJECTIONS,
        Rule(r"\.projections\.fc\.", ".projections.out."),
        Rule(r"\.fc_block\.0\.", ".expand."),
        Rule(r"\.fc_block\.2\.", ".contract."),
        Rule(r"norm\.(g|w\.weight)$", "norm.gain"),
        Rule(r"norm\.(b|wb\.weight)$", "norm.bias"),
        Rule(r"^resnet\.stem\.0\.", "resnet.stem."),
        Rule(r"^resnet\.stem\.1\.norm\.norm\.", "resnet.stem_norm.norm."),
        *(Rule(rf"^resnet\.group{g}\.start_block\.", f"resnet.groups.{g - 1}.0.") for g in range(1, 5)),
        *(
            Rule(rf"^resnet\.group{g}\.blocks\.{j}\.", f"resnet.groups.{g - 1}.{j + 1}.")
            for g in range(1, 5)
            for j in range(6)
        ),
        Rule(r"\.bnr([12])\.norm\.norm\.", r".norm\1.norm."),
        Rule(r"\.proj_conv\.", ".shortcut.0."),
        Rule(r"\.proj_bnr\.norm\.norm\.", ".shortcut.1.norm."),
    ]
)


def vqvae_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The VQ-VAE of either stage's state dict, with the official names.

    Raises:
        UserError: There is none.
    """
    found = subset(state, "vqvae.") or dict(state)
    if "codebook.embeddings" not in found:
        raise UserError("not a VideoGPT checkpoint: no `codebook.embeddings` in it")
    return found


def prior_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prior of a state dict, with the official names, without its VQ-VAE; class tables have our shapes."""
    found = {key: value for key, value in state.items() if not key.startswith("vqvae.")}
    return {key: value.T if re.search(r"norm\.wb?\.weight$", key) else value for key, value in found.items()}


def load_vqvae(network: nn.Module, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads what `vqvae_state` returned; see `KeyMap.load`. Its codebook has been started."""
    renamed, _ = VQVAE_KEYS.convert(state)
    return KeyMap([]).load(network, {**renamed, "codebook.started": torch.tensor(True)}, where)


def load_prior(network: nn.Module, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads what `prior_state` returned into a network that is prepared; see `KeyMap.load`."""
    return PRIOR_KEYS.load(network, state, where)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def vqvae_config(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `VQVAE` for weights of `vqvae_state`; factors are not seen in weights.

    Args:
        state: The weights.
        arguments: The file's, with `downsample`.
    """
    codes, dim = state["codebook.embeddings"].shape
    first = state["encoder.convs.0.conv.weight"]
    return {
        "hidden": int(first.shape[0]),
        "embedding_dim": int(dim),
        "codes": int(codes),
        "res_layers": _count(state, r"encoder\.res_stack\.(\d+)\.block\."),
        "downsample": tuple(int(factor) for factor in arguments["downsample"]),
        "channels": int(first.shape[1]),
    }


def prior_config(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `CodeTransformer` for weights of `prior_state`.

    Args:
        state: The weights.
        arguments: The file's, with `heads` and `attn_type`, which weights do not show.
    """
    widths: tuple[int, ...] = (64, 128, 256, 240)
    frames = 0
    if "resnet.stem.0.weight" in state:
        frames = int(state["cond_pos_embd.emb.d_0"].shape[0])
        widths = tuple(int(state[f"resnet.group{g}.start_block.conv1.weight"].shape[0]) for g in range(1, 5))
    return {
        "hidden_dim": int(state["fc_in.weight"].shape[0]),
        "heads": int(arguments["heads"]),
        "layers": _count(state, r"attn_stack\.attn_nets\.(\d+)\."),
        "attention": str(arguments["attn_type"]),
        "class_conditional": "norm.w.weight" in state,
        "condition_frames": frames,
        "condition_widths": widths,
    }
