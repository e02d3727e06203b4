"""Checkpoints of video-diffusion-pytorch -> exports that `vgen.load` and `init_from:` open.

The authors of VDM released none; these are the files that its public code's Trainer writes (model-<n>.pt).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vgen.conditioning import TextEncoder
from vgen.diffusion import DDPM, GaussianDiffusion, Threshold
from vgen.models.vdm.module import VDM
from vgen.models.vdm.networks import Unet3D
from vgen.models.vdm.weights import load_unet, unet_config, unet_state
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import check_schedule, counted, expecting, source_facts
from vgen.weights.unpickle import read_official

#: DataModule of each preset: its class names and frame rate go into the converted model.
DATA = {"ucf101": "UCF101", "sky": "SkyTimelapse", "folder": "Folder"}

Preset = Literal["ucf101", "sky", "folder"]


def convert(
    preset: Preset,
    class_names: tuple[str, ...],
    fps: float,
    model: str,
    size: int = 64,
    frames: int = 16,
    loss_type: Literal["l1", "l2"] = "l1",
    dynamic_threshold: bool = False,
    text_model: str = "bert-base-cased",
) -> tuple[Export, list[str]]:
    """Converts a Trainer's file; widths, depths and the normalisation are read from the weights.

    Args:
        preset: The data set.
        class_names: Text of each label index.
        fps: Frame rate of the clips.
        model: The file. Its averaged weights are taken over beside the raw ones.
        size: Side of the pictures in pixels.
        frames: Frames of a clip.
        loss_type: What the model was trained with.
        dynamic_threshold: Whether it samples with dynamic thresholds.
        text_model: Text encoder, for a network that takes a text: hub id or local folder.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file is none of these, or holds more than weights.
    """
    path = Path(model)
    content = read_official(path)
    with expecting("this U-Net", path):
        state = unet_state(content)
        unet = Unet3D(**unet_config(state))
    load_unet(unet, state, str(path))
    lines = [counted("U-Net", unet, len(state))]
    buffers = content.get("model", content)
    betas = buffers.get("betas")
    steps = len(betas) if isinstance(betas, Tensor) else 1000
    threshold = Threshold("dynamic" if dynamic_threshold else "clamp", percentile=0.9)
    process = GaussianDiffusion(steps=steps, loss_type=loss_type, threshold=threshold)
    check_schedule(buffers.get("alphas_cumprod"), process.schedule.alphas_cumprod, "the public code's cosine", path)
    keys = ("label", "text") if class_names else ("text",) if unet.has_cond else ()
    spec = ClipSpec(frames, size, size, unet.channels, fps, class_names, keys)
    conditioner = TextEncoder(text_model, dim=unet.cond_dim) if unet.has_cond else None
    converted = VDM(spec, unet, conditioner, process, DDPM())
    facts = source_facts(path, content, "step")
    header = {**describe_model(converted, spec, None), "stage": "diffusion", "clips": 0, "source": [facts]}
    return Export(header, converted.state_dict(), _averaged(content, unet, str(path))), lines


def _averaged(content: Mapping[str, Any], unet: Unet3D, where: str) -> dict[str, Tensor] | None:
    """Averaged weights by the names of the converted model's parameters."""
    if "ema" not in content:
        return None
    average = Unet3D(**unet.configuration)
    load_unet(average, unet_state(content, "ema"), where)
    return {f"denoiser.{name}": value.detach() for name, value in average.named_parameters()}
