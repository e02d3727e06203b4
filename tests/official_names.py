"""State dicts of ours under the names, and in the shapes, of official releases: what tests write files with."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vgen.models.score.networks import ADM, ScoreUNet
from vgen.models.score.networks.blocks import AttentionBlock, FourierEmbedding
from vgen.models.score.networks.blocks import ResBlock as ScoreResBlock
from vgen.models.score.networks.levels import Combine
from vgen.models.vidm.networks.blocks import Downsample, ResBlock, SpatialAttention
from vgen.nn.flow import SpyNet

_RESBLOCK = {
    "norm": "in_layers.0",
    "conv": "in_layers.2",
    "out.norm.phase": "emb_layers.linear_0",
    "out.norm.hidden": "emb_layers.linear_1.0",
    "out.norm.modulation": "emb_layers.linear_1.2",
    "out.norm.norm": "emb_layers.out_norm",
    "out.conv": "emb_layers.out_rest.1",
    "skip": "skip_connection",
}


def spynet_state(network: SpyNet, layout: str = "mmediting") -> dict[str, Tensor]:
    """mmediting: with mean and std; sniklaus: as its released files have it."""
    state = OrderedDict()
    for key, value in network.state_dict().items():
        _, level, _, i, kind = key.split(".")
        if layout == "mmediting":
            state[f"basic_module.{level}.basic_module.{i}.conv.{kind}"] = value
        else:
            state[f"moduleBasic.{level}.moduleBasic.{2 * int(i)}.{kind}"] = value
    return state | ({"mean": network.mean, "std": network.std} if layout == "mmediting" else {})


def _renamed(network: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """The state dict with each module's full name replaced; what is not named keeps its own."""
    state = OrderedDict()
    for key, value in network.state_dict().items():
        module, _, kind = key.rpartition(".")
        state[f"{names.get(module, module)}.{kind}"] = value
    return state


def vidm_state(network: nn.Module) -> dict[str, Tensor]:
    """A motion generator under the release's names."""
    names = {"unet.out_norm": "unet.out.0", "unet.out_conv": "unet.out.2"}
    for path, module in network.named_modules():
        if isinstance(module, ResBlock):
            names |= {f"{path}.{ours}": f"{path}.{theirs}" for ours, theirs in _RESBLOCK.items()}
        elif isinstance(module, SpatialAttention):
            names[f"{path}.proj"] = f"{path}.proj_out"
        elif isinstance(module, Downsample):
            names[f"{path}.conv"] = f"{path}.op"
        elif isinstance(module, SpyNet):
            for name, _ in module.named_modules():
                if name.count(".") == 3:
                    _, level, _, i = name.split(".")
                    names[f"{path}.{name}"] = f"spynet.basic_module.{level}.basic_module.{i}.conv"
    return _renamed(network, names)


def score_sde_state(unet: ScoreUNet) -> dict[str, Tensor]:
    """A U-Net under score SDE's numbers, with its matrices of query, key and value."""
    ordered: list[nn.Module] = [unet.map_noise] if isinstance(unet.map_noise, FourierEmbedding) else []
    ordered += [*unet.time, unet.conv_in]
    for down in unet.down:
        ordered += [layer for block in down.blocks for layer in block]
        ordered += [each for each in (down.down, down.pyramid) if each is not None]
    ordered += [layer for block in unet.middle for layer in block]
    for up in unet.up:
        ordered += [layer for block in up.blocks for layer in block]
        ordered += [] if up.head is None else [up.head.norm, up.head.conv]
        ordered += [each for each in (up.pyramid, up.up) if each is not None]
    ordered += [] if unet.head is None else [unet.head.norm, unet.head.conv]
    state = OrderedDict(sigmas=torch.zeros(1000))
    for i, module in enumerate(ordered):
        for key, value in _score_sde_module(module).items():
            state[f"module.all_modules.{i}.{key}"] = value
    return state


def _score_sde_module(module: nn.Module) -> dict[str, Tensor]:
    own = module.state_dict()
    if isinstance(module, FourierEmbedding):
        return {"W": own["frequencies"]}
    if isinstance(module, AttentionBlock):
        state = {f"GroupNorm_0.{kind}": own[f"norm.{kind}"] for kind in ("weight", "bias")}
        for i in range(3):
            state |= {f"NIN_{i}.W": own["qkv.weight"][i::3, :, 0, 0].T, f"NIN_{i}.b": own["qkv.bias"][i::3]}
        return state | {"NIN_3.W": own["proj.weight"][:, :, 0, 0].T, "NIN_3.b": own["proj.bias"]}
    if isinstance(module, ScoreResBlock):
        names = {"norm0": "GroupNorm_0", "conv0": "Conv_0", "affine": "Dense_0", "norm1": "GroupNorm_1"}
        names |= {"conv1": "Conv_1", "skip": "Conv_2"}
        return {f"{names[k.split('.')[0]]}.{k.split('.')[1]}": v for k, v in own.items()}
    inner = "Conv_0" if isinstance(module, Combine) or not getattr(module, "filtered", False) else "Conv2d_0"
    return {key.replace("conv.", f"{inner}."): value for key, value in own.items()}


def edm_state(network: ScoreUNet | ADM) -> dict[str, Tensor]:
    """A U-Net under EDM's names."""
    levels, names = len(network.down), {"map_noise": "map_noise", "time.0": "map_layer0", "time.1": "map_layer1"}
    sides = [f"{network.resolution >> i}x{network.resolution >> i}" for i in range(levels)]
    names["conv_in"] = f"enc.{sides[0]}_conv"
    ends = ("dec.{}_aux_norm", "dec.{}_aux_conv") if isinstance(network, ScoreUNet) else ("out_norm", "out_conv")

    def block(ours: str, theirs: str) -> None:
        parts = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
        names.update({f"{ours}.0.{part}": f"{theirs}.{part}" for part in parts})
        names.update(
            {f"{ours}.1.{a}": f"{theirs}.{b}" for a, b in (("norm", "norm2"), ("qkv", "qkv"), ("proj", "proj"))}
        )

    for i, side in enumerate(sides):
        for j in range(len(network.down[i].blocks)):
            block(f"down.{i}.blocks.{j}", f"enc.{side}_block{j}")
        for j in range(len(network.down[i].blocks) + 1):
            block(f"up.{levels - 1 - i}.blocks.{j}", f"dec.{side}_block{j}")
        for part in ("norm0", "conv0", "affine", "norm1", "conv1", "skip"):
            names[f"down.{i - 1}.down.{part}"] = f"enc.{side}_down.{part}"
            names[f"up.{levels - 2 - i}.up.{part}"] = f"dec.{side}_up.{part}"
        aux = "aux_skip" if network.down[0].pyramid.__class__ is Combine else "aux_residual"
        names[f"down.{i - 1}.pyramid.conv"] = f"enc.{side}_{aux}"
        names[f"up.{levels - 1 - i}.head.norm"] = f"dec.{side}_aux_norm"
        names[f"up.{levels - 1 - i}.head.conv"] = f"dec.{side}_aux_conv"
    names["head.norm"], names["head.conv"] = (end.format(sides[0]) for end in ends)
    for i in range(2):
        block(f"middle.{i}", f"dec.{sides[-1]}_in{i}")
    state = _renamed(network, names)
    return {f"model.{k.replace('map_noise.frequencies', 'map_noise.freqs')}": v for k, v in state.items()}
