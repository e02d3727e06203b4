"""Official checkpoints of score SDE (score_sde_pytorch) -> an export that `vgen.load` and `init_from:` open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vgen.diffusion import VE, VP, ContinuousDiffusion, PredictorCorrector, SubVP
from vgen.errors import UserError
from vgen.models.score.module import ScoreModel
from vgen.models.score.networks import ScoreNetwork, ScoreUNet
from vgen.models.score.weights import load_score_sde
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import source_facts
from vgen.weights.unpickle import read_official

#: Networks of the released configurations; the depth is read from the file.
_NETWORKS: dict[str, dict[str, Any]] = {
    "ncsnpp": {},
    "ddpmpp": {"noise_embedding": "positional", "taps": None, "encoder": "standard"},
    "ddpm": {
        "noise_embedding": "positional",
        "taps": None,
        "encoder": "standard",
        "block": "ddpm",
        "per_group": 1,
        "skip_rescale": False,
    },
}


def convert(
    file: str,
    network: Literal["ncsnpp", "ddpmpp", "ddpm"],
    sde: Literal["ve", "vp", "subvp"],
    size: int = 32,
    continuous: bool = True,
    model_channels: int = 128,
    channel_mult: tuple[int, ...] = (1, 2, 2, 2),
    attn_resolutions: tuple[int, ...] = (16,),
    sigma_max: float = 50.0,
    averaged: bool = True,
) -> tuple[Export, list[str]]:
    """Converts a checkpoint; what its configuration said has to be said again.

    Args:
        file: checkpoint_<n>.pth.
        network: Network of the configuration (`model.name` and its options).
        sde: Process of the configuration.
        size: Side of the images.
        continuous: Whether it was trained on continuous times (`training.continuous`).
        model_channels: `model.nf`.
        channel_mult: `model.ch_mult`.
        attn_resolutions: `model.attn_resolutions`.
        sigma_max: `model.sigma_max`, for VE.
        averaged: Take the averaged weights.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file is none of score SDE's, or of another configuration.
    """
    content = read_official(file)
    state = _weights(content, averaged, file)
    wanted = len([name for name in state if name.endswith("Dense_0.weight")])  # residual blocks
    levels, resampling = len(channel_mult), 0 if network == "ddpm" else 2 * (len(channel_mult) - 1)
    # 2 in the middle, n on the way down and n + 1 on the way up of each level
    num_blocks, rest = divmod(wanted - 2 - levels - resampling, 2 * levels)
    if rest or num_blocks < 1:
        raise UserError(f"{wanted} residual blocks do not make {levels} levels", file, "say --channel_mult")
    channels = next(int(v.shape[1]) for k, v in state.items() if v.ndim == 4 and v.shape[0] == model_channels)
    unet = ScoreUNet(
        size,
        channels,
        model_channels=model_channels,
        channel_mult=tuple(channel_mult),
        num_blocks=num_blocks,
        attn_resolutions=tuple(attn_resolutions),
        **_NETWORKS[network],
    )
    exploding = sde == "ve"
    wrapped = ScoreNetwork(unet, centered=not exploding, scale_by_sigma=exploding, sigma_max=sigma_max)
    load_score_sde(wrapped, state, file)
    schedule = {"ve": VE(sigma_max=sigma_max), "vp": VP(), "subvp": SubVP()}[sde]
    process = ContinuousDiffusion(
        schedule,
        "score" if exploding else "eps",
        reduction="half_sum" if exploding else "mean",
        continuous=continuous,
    )
    sampler = (
        PredictorCorrector()
        if exploding
        else PredictorCorrector(predictor="euler_maruyama", corrector="none", end=1e-3)
    )
    clip = ClipSpec(1, size, size, channels)
    model = ScoreModel(clip, wrapped, process, sampler, likelihood=True)
    facts = source_facts(Path(file))
    facts |= {"step": int(content["step"])} if isinstance(content.get("step"), int | Tensor) else {}
    header = {**describe_model(model, clip, None), "stage": "model", "clips": 0, "source": [facts]}
    count = sum(value.numel() for value in wrapped.parameters())
    return Export(header, model.state_dict()), [f"{network} ({sde}): {count:,} parameters, {num_blocks} blocks a level"]


def _weights(content: Mapping[str, Any], averaged: bool, where: str) -> dict[str, Tensor]:
    """Weights by official names; the averages are a list in the order of the trainable parameters.

    Raises:
        UserError: There are none.
    """
    state = content.get("model")
    if not isinstance(state, Mapping) or not any("all_modules." in name for name in state):
        raise UserError("not a score SDE checkpoint: no `model` with `all_modules.*` in it", where)
    state = dict(state)
    if not averaged:
        return state
    shadow = content.get("ema", {}).get("shadow_params")
    # the table of noise levels is a buffer, and the Fourier frequencies do not learn
    names = [name for name in state if not name.endswith("sigmas") and not name.endswith("all_modules.0.W")]
    if not isinstance(shadow, list) or [tuple(v.shape) for v in shadow] != [tuple(state[n].shape) for n in names]:
        raise UserError("the averaged weights are not in the order of the model's", where, "--averaged false")
    return state | dict(zip(names, (torch.as_tensor(value) for value in shadow), strict=True))
