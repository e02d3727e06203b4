"""LVDM's released checkpoints -> exports that `vgen.load`, `codec:` and `init_from:` open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vgen.diffusion import DDIM, GaussianDiffusion, Threshold
from vgen.errors import UserError
from vgen.models.video_ldm.autoencoder_module import VideoAutoencoder
from vgen.models.video_ldm.module import VideoLDM
from vgen.models.video_ldm.networks import Autoencoder3D, LVDMUnet
from vgen.models.video_ldm.weights import (
    autoencoder_config,
    autoencoder_state,
    averaged_state,
    load,
    state_of,
    unet_config,
    unet_state,
)
from vgen.video import ClipSpec
from vgen.weights.checkpoint import RUN, describe_model
from vgen.weights.export import Export
from vgen.weights.official import check_schedule, counted, expecting, source_facts
from vgen.weights.unpickle import read_official

#: DataModule of each preset: its frame rate goes into the converted model.
DATA = {"ucf101": "UCF101", "sky": "SkyTimelapse", "taichi": "TaiChiHD"}
#: Factor and shift of the latent in the released configurations.
LATENT = {"ucf101": (0.220142075, 0.5837740898), "sky": (0.33422927, 1.4606637), "taichi": (0.175733933, 0.03291025)}
#: What the files count.
COUNTERS = ("epoch", "global_step")

Preset = Literal["ucf101", "sky", "taichi"]


def convert(
    preset: Preset,
    class_names: tuple[str, ...],
    fps: float,
    ae: str | None = None,
    dm: str | None = None,
    size: int = 256,
    frames: int = 16,
) -> tuple[Export, list[str]]:
    """Converts official files; widths and depths are read from the weights.

    Args:
        preset: Data set of the release: factor and shift of the latent.
        class_names: Not used: the released models are unconditional.
        fps: Frame rate of the clips.
        ae: Auto-encoder (ae_sky.ckpt and the like); a diffusion file has its own.
        dm: Diffusion model (lvdm_short/sky.ckpt and the like).
        size: Side of the pictures in pixels; the release has 256.
        frames: Frames of a clip; the release has 16.

    Returns:
        The export of the auto-encoder, or with `dm` that of the diffusion model with the auto-encoder inside, and lines
        for people.

    Raises:
        UserError: Files that hold something else, or more than weights.
    """
    if ae is None and dm is None:
        raise UserError("name a file", "vgen convert lvdm", "--ae ae_sky.ckpt, or --dm sky.ckpt")
    spec = ClipSpec(frames, size, size, fps=fps)
    content = read_official(Path(dm or ae or ""))
    first_content = content if ae is None or dm is None else read_official(Path(ae))
    state = None if dm is None else unet_state(content)
    model, first, lines = _autoencoder(Path(ae or dm or ""), first_content, spec)
    if dm is None or state is None:
        return first, lines
    path = Path(dm)
    with expecting("LVDM's U-Net", path):
        unet = LVDMUnet(**unet_config(state))
    load(unet, state, str(path))
    scale, shift = _latent(preset, content)
    # LVDM's "linear" is linear in the root of beta
    process = GaussianDiffusion(
        "scaled_linear", loss_type="l1", threshold=Threshold("none"), beta_ends=(0.0015, 0.0155)
    )
    stored = state_of(content).get("alphas_cumprod")
    check_schedule(stored, process.schedule.alphas_cumprod, "the released models", path)
    converted = VideoLDM(spec, unet, model, None, process, DDIM(50, eta=1.0), latent_scale=scale, latent_shift=shift)
    header = {**describe_model(converted, spec, None), "stage": "diffusion", "clips": 0}
    header["source"] = [*first.header["source"], source_facts(path, content, *COUNTERS)]
    header["init_args"]["codec"] = {"path": f"{RUN}codec", "weights": "raw", "sha256": None}
    weights = {name: value for name, value in converted.state_dict().items() if not name.startswith("codec.")}
    names = [name for name, _ in unet.named_parameters()]
    averaged = averaged_state(content, names)
    ema = None if averaged is None else {f"denoiser.{name}": value for name, value in averaged.items()}
    lines.append(counted("diffusion model", unet, len(state)) + ("" if ema is None else ", with averaged weights"))
    return Export(header, weights, ema, parts={"codec": first}), lines


def _autoencoder(path: Path, content: Mapping[str, Any], spec: ClipSpec) -> tuple[VideoAutoencoder, Export, list[str]]:
    with expecting("LVDM's auto-encoder", path):
        state = autoencoder_state(content)
        network = Autoencoder3D(**autoencoder_config(state))
    load(network, state, str(path))
    model = VideoAutoencoder(spec, network, kl_weight=0.0)  # the released weight
    header = {**describe_model(model, spec, None), "stage": "autoencoder", "clips": 0}
    header["source"] = [source_facts(path, content, *COUNTERS)]
    return model, Export(header, model.state_dict()), [counted("auto-encoder", network, len(state))]


def _latent(preset: str, content: Mapping[str, Any]) -> tuple[float, float]:
    """Factor and shift: the file's own where it has them, else the release's."""
    state, (scale, shift) = state_of(content), LATENT[preset]
    own = [state.get(name) for name in ("scale_factor", "shift_factor")]
    found = [float(value) if isinstance(value, Tensor) else None for value in own]
    return scale if found[0] is None else found[0], shift if found[1] is None else found[1]
