"""Official EDM network pickles -> an export that `vgen.load` and `init_from:` open; no code in them is run."""

from pathlib import Path
from typing import Any, Literal

from vgen.diffusion import ContinuousDiffusion, Karras, KarrasSampler, LossWeighting, Preconditioning, TimeSampling
from vgen.errors import UserError
from vgen.models.score.module import ScoreModel
from vgen.models.score.networks import ADM, Preconditioned, ScoreUNet
from vgen.models.score.weights import load_edm
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import source_facts
from vgen.weights.persistence import network_state, read_network_pickle

_SONG: dict[str, dict[str, Any]] = {
    "ddpmpp": {"noise_embedding": "positional", "encoder": "standard", "taps": (1, 1), "channel_mult": (2, 2, 2)},
    "ncsnpp": {"noise_embedding": "fourier", "encoder": "residual", "taps": (1, 3, 3, 1), "channel_mult": (2, 2, 2)},
}


def convert(
    file: str,
    network: Literal["ddpmpp", "ncsnpp", "adm"],
    channel_mult: tuple[int, ...] | None = None,
    attn_resolutions: tuple[int, ...] | None = None,
    steps: int = 18,
) -> tuple[Export, list[str]]:
    """Converts the averaged network of a snapshot; widths, depths and classes are read from it.

    Args:
        file: edm-<data>-<...>.pkl or network-snapshot-<n>.pkl.
        network: Network of the configuration (`--arch`).
        channel_mult: Widths of the levels; default those of CIFAR-10, and of ImageNet-64 for adm.
        attn_resolutions: Sides with attention; default 16, and 32, 16, 8 for adm.
        steps: Noise levels of the sampler: 18 for CIFAR-10, 40 for FFHQ and AFHQ, 256 with churn for ImageNet-64.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file is no such pickle, or of another configuration.
    """
    content = read_network_pickle(file)
    if not isinstance(content, dict) or "ema" not in content:
        raise UserError("not an EDM snapshot: no `ema` in it", file)
    facts, state = network_state(content["ema"])
    missing = [name for name in ("img_resolution", "img_channels", "label_dim") if not isinstance(facts.get(name), int)]
    if missing:
        raise UserError(f"the network in the file says no {', '.join(missing)}", file)
    size, channels, classes = (int(facts[name]) for name in ("img_resolution", "img_channels", "label_dim"))
    first = next((v for k, v in state.items() if k.endswith(f"enc.{size}x{size}_conv.weight")), None)
    augment = state.get("model.map_augment.weight")
    if first is None:
        raise UserError("the weights are not those of EDM's networks", file)
    blocks = [k for k in state if k.startswith(f"model.enc.{size}x{size}_block") and k.endswith("conv0.weight")]
    shared: dict[str, Any] = {
        "num_blocks": len(blocks),
        "label_dim": classes,
        "augment_dim": 0 if augment is None else int(augment.shape[1]),
    }
    width = int(first.shape[0])
    if network == "adm":
        mult = channel_mult or (1, 2, 3, 4)
        sides = attn_resolutions or (32, 16, 8)
        unet: ScoreUNet | ADM = ADM(
            size, channels, None, width // mult[0], tuple(mult), attn_resolutions=tuple(sides), **shared
        )
    else:
        own = _SONG[network] | ({"channel_mult": tuple(channel_mult)} if channel_mult else {})
        sides = attn_resolutions or (16,)
        unet = ScoreUNet(size, channels, None, width, attn_resolutions=tuple(sides), **own, **shared)
    sigma_data = float(facts.get("sigma_data", 0.5))
    wrapped = Preconditioned(unet, Preconditioning("edm", sigma_data))
    load_edm(wrapped, state, file)
    process = ContinuousDiffusion(
        Karras(), "x0", TimeSampling("lognormal"), weighting=LossWeighting("edm", sigma_data=sigma_data), label="sigma"
    )
    names = tuple(str(i) for i in range(classes))
    clip = ClipSpec(1, size, size, channels, class_names=names, condition_keys=("label",) if classes else ())
    model = ScoreModel(clip, wrapped, process, KarrasSampler(steps), class_conditional=classes > 0)
    header = {**describe_model(model, clip, None), "stage": "model", "clips": 0, "source": [source_facts(Path(file))]}
    count = sum(value.numel() for value in wrapped.parameters())
    return Export(header, model.state_dict()), [
        f"EDM {network}: {count:,} parameters, {size}x{size}, {classes} classes"
    ]
