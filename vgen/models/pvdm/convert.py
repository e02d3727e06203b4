"""Official PVDM checkpoint files -> exports that `vgen.load`, `codec:` and `init_from:` open."""

from pathlib import Path
from typing import Any, Literal

from vgen.diffusion import DDIM, GaussianDiffusion
from vgen.errors import UserError
from vgen.models.pvdm import weights
from vgen.models.pvdm.autoencoder_module import PlaneAutoencoder
from vgen.models.pvdm.module import PVDM
from vgen.models.pvdm.networks import PlaneUNet, ViTAutoencoder
from vgen.nn.patch_discriminator import PatchDiscriminator
from vgen.video import ClipSpec
from vgen.weights.checkpoint import RUN, describe_model
from vgen.weights.export import Export
from vgen.weights.official import counted, expecting, source_facts
from vgen.weights.unpickle import read_official

#: DataModule of each preset: its frame rate goes into the converted model.
DATA = {"ucf101": "UCF101", "sky": "SkyTimelapse"}
#: Share of training batches with a condition: what the weights do not show, and only further training needs.
CONDITIONAL = {"ucf101": 0.3, "sky": 0.2}
#: Parameters of the released networks: said in the output where a file has them.
RELEASED = {
    62_064_399: "autoencoder",
    528_273_412: "PVDM-L",
    132_163_588: "PVDM-S",
    2_766_529: "discriminator of frames",
    11_057_857: "discriminator of clips",
}


def convert(
    preset: Literal["ucf101", "sky"],
    class_names: tuple[str, ...],
    fps: float,
    autoencoder: str,
    diffusion: str | None = None,
    loss: str | None = None,
) -> tuple[Export, list[str]]:
    """Converts official files; sizes, widths and depths are read from the weights.

    Args:
        preset: Data set, for the frame rate and the share of conditions.
        class_names: Text of each label index; PVDM does not use them.
        fps: Frame rate of the clips.
        autoencoder: The autoencoder (model_last.pth of the first stage).
        diffusion: The diffusion model (ema_model_*.pth or model_*.pth of the second stage).
        loss: The discriminators, for further adversarial training (loss_last.pth of the first stage).

    Returns:
        The export of the autoencoder, or with `diffusion` that of the diffusion model with the autoencoder inside, and
        lines for people.

    Raises:
        UserError: Files that do not go together, are none of these, or hold more than weights.
    """
    if diffusion is not None and loss is not None:
        raise UserError("discriminators are for training the autoencoder alone", "--loss", "leave out --diffusion")
    path = Path(autoencoder)
    model, lines = _autoencoder(path, fps, loss)
    sources = [Path(name) for name in (autoencoder, loss) if name is not None]
    header = {**describe_model(model, model.clip_spec, None), "stage": "autoencoder" if loss is None else "gan"}
    header |= {"clips": 0, "source": [source_facts(source) for source in sources]}
    first = Export(header, model.state_dict())
    if diffusion is None:
        return first, lines
    second, notes = _diffusion(Path(diffusion), model, CONDITIONAL[preset])
    header = {**describe_model(second, second.clip_spec, None), "stage": "diffusion", "clips": 0}
    header["source"] = [*first.header["source"], source_facts(Path(diffusion))]
    header["init_args"]["codec"] = {"path": f"{RUN}codec", "weights": "raw", "sha256": None}
    state = {name: value for name, value in second.state_dict().items() if not name.startswith("codec.")}
    return Export(header, state, parts={"codec": first}), lines + notes


def _autoencoder(path: Path, fps: float, loss: str | None) -> tuple[PlaneAutoencoder, list[str]]:
    with expecting("a PVDM autoencoder", path):
        state = weights.autoencoder_state(read_official(path))
        network = ViTAutoencoder(**weights.autoencoder_config(state))
        frames, height, width = weights.clip_size(state)
    lines, judges = list[str](), dict[str, Any]()
    if loss is not None:
        judges, lines = _discriminators(Path(loss))
    clip = ClipSpec(frames, height, width, network.num_channels, fps)
    model = PlaneAutoencoder(clip, network, perceptual=None, **judges)
    weights.load(weights.AUTOENCODER_KEYS, network, state, str(path))
    found = counted("autoencoder", network, len(state), RELEASED)
    return model, [f"{found}; clips of {frames} frames of {height}x{width} pixels", *lines]


def _discriminators(path: Path) -> tuple[dict[str, Any], list[str]]:
    content, found, lines = read_official(path), {}, []
    for name, dims in (("image", 2), ("video", 3)):
        with expecting("a PVDM loss file", path):
            state = weights.discriminator_state(content, dims)
            network = PatchDiscriminator(dims, **weights.discriminator_config(state))  # type: ignore[arg-type]
        weights.load(weights.DISCRIMINATOR_KEYS, network, state, str(path))
        found[f"{name}_discriminator"] = network
        lines.append(counted(f"discriminator of {name}s", network, len(state), RELEASED))
    return found, lines


def _diffusion(path: Path, autoencoder: PlaneAutoencoder, conditional: float) -> tuple[PVDM, list[str]]:
    with expecting("a PVDM diffusion model", path):
        state = weights.unet_state(read_official(path))
        unet = PlaneUNet(**weights.unet_config(state))
    weights.load(weights.UNET_KEYS, unet, state, str(path))
    first = autoencoder.clip_spec
    clip = ClipSpec(first.frames * (2 if unet.conditional else 1), first.height, first.width, first.channels, first.fps)
    process = GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0195))
    model = PVDM(clip, unet, autoencoder, process, DDIM(400, 1.0, "pvdm"), conditional)
    lines = [counted("diffusion model", unet, len(state), RELEASED)]
    if sum(p.numel() for p in unet.parameters()) not in RELEASED:
        lines.append("note: the number of attention heads cannot be read from weights; 8 are assumed, as released")
    return model, lines
