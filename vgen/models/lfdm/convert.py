"""Official LFDM and MRAA checkpoint files -> exports that `vgen.load`, `codec:` and `init_from:` open."""

from pathlib import Path
from typing import Any, Literal

from vgen.conditioning import TextEncoder
from vgen.diffusion import DDPM, GaussianDiffusion, Threshold
from vgen.errors import UserError
from vgen.models.lfdm.autoencoder_module import LatentFlowAutoencoder
from vgen.models.lfdm.module import LFDM
from vgen.models.lfdm.networks import LFAE, Unet3D
from vgen.models.lfdm.weights import lfae_config, lfae_state, load_lfae, load_unet, unet_config, unet_state
from vgen.video import ClipSpec
from vgen.weights.checkpoint import RUN, describe_model
from vgen.weights.export import Export
from vgen.weights.official import check_schedule, counted, expecting, source_facts
from vgen.weights.unpickle import read_official

#: DataModule of each preset: its class names and frame rate go into the converted model.
DATA = {"mug": "MUG", "mhad": "MHAD", "natops": "NATOPS"}
#: Parameters of the released networks: said in the output where a file has them.
RELEASED = {66_004_557: "LFAE", 42_731_203: "U-Net of MUG and MHAD", 42_129_859: "U-Net of NATOPS"}
#: What the files count.
COUNTERS = ("epoch", "example")

Preset = Literal["mug", "mhad", "natops"]


def convert(
    preset: Preset,
    class_names: tuple[str, ...],
    fps: float,
    lfae: str | None = None,
    dm: str | None = None,
    mraa: str | None = None,
    size: int = 128,
    frames: int = 40,
    text_model: str = "bert-base-cased",
) -> tuple[Export, list[str]]:
    """Converts official files; widths and depths are read from the weights.

    Args:
        preset: What the weights do not show: padding of the region heads, up-sampling, classes. MRAA's vox256 goes
            with mug, its taichi256 with mhad and natops.
        class_names: Text of each label index.
        fps: Frame rate of the clips.
        lfae: Auto-encoder of the LFDM release (LFAE_MUG.pth or RegionMM_*.pth).
        dm: Diffusion model of the LFDM release (DM_MUG.pth or flowdiff_*.pth); needs --lfae as well.
        mraa: Weights of MRAA (vox256.pth, taichi256.pth), which the official auto-encoders start from.
        size: Side of the pictures in pixels; the release has 128.
        frames: Frames of a clip; the release has 40.
        text_model: Text encoder of the class names: hub id or local folder.

    Returns:
        The export of the auto-encoder, or with `dm` that of the diffusion model with the auto-encoder inside, and lines
        for people.

    Raises:
        UserError: Files that do not go together, are none of these, or hold more than weights.
    """
    if (lfae is None) == (mraa is None):
        raise UserError("name one auto-encoder", "vgen convert lfdm", "--lfae LFAE_MUG.pth, or --mraa vox256.pth")
    if dm is not None and lfae is None:
        raise UserError("the diffusion model belongs to an LFAE, not to MRAA's weights", "--dm", "add --lfae")
    keys = ("label", "text", "subject")
    pair = ClipSpec(2, size, size, fps=fps, class_names=class_names, condition_keys=keys)
    clip = ClipSpec(frames, size, size, fps=fps, class_names=class_names, condition_keys=keys)
    autoencoder, first, lines = _autoencoder(Path(lfae or mraa or ""), preset, pair)
    if dm is None:
        return first, lines
    model, facts, notes = _diffusion(Path(dm), preset, clip, autoencoder, text_model)
    header = {**describe_model(model, clip, None), "stage": "diffusion", "clips": 0}
    header["source"] = [*first.header["source"], facts]
    header["init_args"]["codec"] = {"path": f"{RUN}codec", "weights": "raw", "sha256": None}
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("codec.")}
    return Export(header, state, parts={"codec": first}), lines + notes


def _autoencoder(path: Path, preset: str, clip: ClipSpec) -> tuple[LatentFlowAutoencoder, Export, list[str]]:
    content = read_official(path)
    with expecting("an LFAE or MRAA file", path):
        state = lfae_state(content)
        network = LFAE(**lfae_config(state, preset))
    load_lfae(network, state, str(path))
    model = LatentFlowAutoencoder(clip, network, image_loss=None)
    header = {
        **describe_model(model, clip, None),
        "stage": "autoencoder",
        "clips": 0,
        "source": [source_facts(path, content, *COUNTERS)],
    }
    return model, Export(header, model.state_dict()), [counted("auto-encoder", network, len(state), RELEASED)]


def _diffusion(
    path: Path, preset: str, clip: ClipSpec, autoencoder: LatentFlowAutoencoder, text_model: str
) -> tuple[LFDM, dict[str, Any], list[str]]:
    content = read_official(path)
    with expecting("an LFDM diffusion file", path):
        state = unet_state(content)
        arguments = unet_config(state, preset)
        unet = Unet3D(**arguments)
    load_unet(unet, state, str(path))
    if not unet.has_cond:
        raise UserError("this U-Net takes no condition; LFDM's released models do", str(path))
    process = GaussianDiffusion(threshold=Threshold("dynamic", percentile=0.9))
    buffers = content.get("diffusion", content)
    stored = next((v for k, v in buffers.items() if k.removeprefix("module.") == "alphas_cumprod"), None)
    usual = "the released models (cosine, 1000 steps)"
    check_schedule(stored, process.schedule.alphas_cumprod, usual, path)
    conditioner = TextEncoder(text_model, dim=unet.cond_dim)
    model = LFDM(clip, unet, autoencoder, conditioner, process, DDPM())
    lines = [counted("diffusion model", unet, len(state), RELEASED)]
    if (preset == "natops") == arguments["use_deconv"]:
        lines.append(f"note: the released {preset} model up-samples in another way; is the preset right?")
    try:
        conditioner.materialize()
        lines.append(f"class names encoded by {text_model}")
    except UserError as error:
        lines.append(f"note: class names are not encoded yet, {text_model} is needed once more: {error.what}")
    return model, source_facts(path, content, *COUNTERS), lines
