"""Official score SDE and EDM weights -> our state dicts.

score SDE numbers all modules in the order in which they are made, and so do we: the numbers follow from the network.
EDM names blocks by their resolution. Both keep query, key and value in other shapes than one 1x1 convolution.
"""

import re
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from vgen.models.score.networks import ADM, Preconditioned, ScoreNetwork, ScoreUNet
from vgen.models.score.networks.blocks import AttentionBlock, ConvResample, FourierEmbedding, ResBlock
from vgen.models.score.networks.levels import Combine, DownLevel, Head, UpLevel
from vgen.weights.keymap import KeyMap, KeyReport, Rule

_CONTAINERS = (nn.ModuleList, DownLevel, UpLevel, Head)


def _numbered(unet: ScoreUNet) -> Iterator[tuple[str, nn.Module]]:
    """Our modules in the order of score SDE's `all_modules`, by name."""

    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if not isinstance(module, _CONTAINERS):
            yield name, module
            return
        for child_name, child in module.named_children():
            yield from walk(f"{name}.{child_name}", child)

    if isinstance(unet.map_noise, FourierEmbedding):
        yield "map_noise", unet.map_noise
    # the image pyramids' own resampling has no weights and no number
    for name in ("time", "conv_in", "down", "middle", "up", "head"):
        if (part := getattr(unet, name)) is not None:
            yield from walk(name, part)


def _inside(module: nn.Module) -> dict[str, str]:
    """Names of a numbered module's parts: theirs -> ours."""
    if isinstance(module, ResBlock):
        names = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1"}
        return names | {"Conv_1": "conv1", "Conv_2": "skip", "NIN_0": "skip"}
    if isinstance(module, AttentionBlock):
        return {"GroupNorm_0": "norm", "qkv": "qkv", "NIN_3": "proj"}
    if isinstance(module, (ConvResample, Combine)):
        return {"Conv_0": "conv", "Conv2d_0": "conv"}
    return {}


def score_sde_keys(network: ScoreNetwork) -> KeyMap:
    """The renamings for a network; its state has to be `fused` first."""
    rules = [Rule(r"^module\.", ""), Rule(r"^sigmas$")]
    for i, (name, module) in enumerate(_numbered(cast(ScoreUNet, network.unet))):
        path = rf"^all_modules\.{i}\."
        rules += [Rule(rf"{path}{theirs}\.", f"unet.{name}.{ours}.") for theirs, ours in _inside(module).items()]
        rules.append(Rule(rf"{path}W$", f"unet.{name}.frequencies"))
        rules.append(Rule(rf"{path}(?=weight$|bias$)", f"unet.{name}."))
    return KeyMap(rules)


def fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Score SDE's `NIN` matrices (in, out) as 1x1 convolutions, those of query, key and value as one (out, q k v)."""
    result = {}
    for key, value in state.items():
        match = re.fullmatch(r"(.*\.)NIN_(\d)\.([Wb])", key)
        if match is None:
            result[key] = value
            continue
        prefix, number, kind = match.groups()
        kind = {"W": "weight", "b": "bias"}[kind]
        attention = f"{prefix}NIN_3.W" in state
        if not attention or number == "3":
            result[f"{prefix}NIN_{number}.{kind}"] = _convolution(value)
        elif number == "0":
            parts = [_convolution(state[f"{prefix}NIN_{i}.{match[3]}"]) for i in range(3)]
            result[f"{prefix}qkv.{kind}"] = torch.stack(parts, dim=1).flatten(0, 1)
    return result


def _convolution(value: Tensor) -> Tensor:
    return value.mT[:, :, None, None] if value.ndim == 2 else value


def load_score_sde(network: ScoreNetwork, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads official score SDE weights; see `KeyMap.load`."""
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    return score_sde_keys(network).load(network, fused(plain), where)


def edm_keys(network: ScoreUNet | ADM) -> KeyMap:
    """The renamings of EDM's U-Net weights, whose keys may begin with `model.`, for one of ours.

    A block of theirs with attention (norm2, qkv, proj) is two of ours.
    """
    levels = len(network.down)
    rules = [Rule(r"(^|\.)resample_filter$"), Rule(r"^model\.", "")]
    rules += [Rule(r"^map_noise\.freqs$", "map_noise.frequencies"), Rule(r"^map_layer(\d)\.", r"time.\1.")]
    rules += [Rule(r"^out_(norm|conv)\.", r"head.\1."), Rule(r"^enc\.\d+x\d+_conv\.", "conv_in.")]

    def block(theirs: str, ours: str) -> None:
        rules.append(Rule(rf"^{theirs}\.norm2\.", f"{ours}.1.norm."))
        rules.append(Rule(rf"^{theirs}\.(qkv|proj)\.", rf"{ours}.1.\2."))
        rules.append(Rule(rf"^{theirs}\.", f"{ours}.0."))

    for i in range(levels):
        side, from_coarse = network.resolution >> i, levels - 1 - i
        enc, dec = rf"enc\.{side}x{side}", rf"dec\.{side}x{side}"
        block(rf"{enc}_block(\d+)", rf"down.{i}.blocks.\1")
        block(rf"{dec}_block(\d+)", rf"up.{from_coarse}.blocks.\1")
        rules.append(Rule(rf"^{enc}_down\.", f"down.{i - 1}.down."))
        rules.append(Rule(rf"^{dec}_up\.", f"up.{from_coarse - 1}.up."))
        rules.append(Rule(rf"^{enc}_aux_(?:residual|skip)\.", f"down.{i - 1}.pyramid.conv."))
        head = "head" if network.head is not None else f"up.{from_coarse}.head"
        rules.append(Rule(rf"^{dec}_aux_(norm|conv)\.", rf"{head}.\1."))
    block(r"dec\.\d+x\d+_in(\d)", r"middle.\1")
    return KeyMap(rules)


def load_edm(network: Preconditioned, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads official EDM weights; see `KeyMap.load`."""
    return edm_keys(cast(ScoreUNet | ADM, network.network)).load(network.network, state, where)
