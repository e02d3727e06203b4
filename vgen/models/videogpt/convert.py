"""Official VideoGPT checkpoints (of the VQ-VAE, or of a prior with its VQ-VAE) -> exports that `vgen.load` opens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vgen.errors import UserError
from vgen.models.videogpt import weights
from vgen.models.videogpt.module import VideoGPT
from vgen.models.videogpt.networks import VQVAE, CodeTransformer
from vgen.models.videogpt.vqvae_module import VideoVQVAE
from vgen.video import ClipSpec
from vgen.weights.checkpoint import RUN, describe_model
from vgen.weights.export import Export
from vgen.weights.official import counted, expecting, source_facts
from vgen.weights.unpickle import read_official

#: DataModule of each preset: its class names and frame rate go into the converted model.
DATA = {"ucf101": "UCF101", "bair": "BAIR", "kinetics": "Kinetics600"}
#: What the checkpoints mention besides tensors and plain containers.
_ALLOWED = (
    "argparse.Namespace",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


def convert(
    preset: Literal["ucf101", "bair", "kinetics"], class_names: tuple[str, ...], fps: float, model: str
) -> tuple[Export, list[str]]:
    """Converts an official file; sizes, widths and depths are read from it.

    Args:
        preset: Data set, for the frame rate and the names of classes.
        class_names: Text of each label index.
        fps: Frame rate of the clips.
        model: The file: a VQ-VAE (bair_stride4x2x2, ...), or a prior, which holds its VQ-VAE too (bair_gpt, ...).

    Returns:
        The export of the VQ-VAE, or that of the prior with the VQ-VAE inside, and lines for people.

    Raises:
        UserError: The file is none of these, or holds more than weights and arguments.
    """
    path = Path(model)
    state, arguments = _read(path)
    with expecting("VideoGPT", path):
        first_state = weights.vqvae_state(state)
        is_prior = "attn_stack.right_shift.sos" in state
        size = int(arguments["resolution"])
        frames = int(arguments["sequence_length"])
        if is_prior:  # it does not repeat the factors, but has a grid
            grid = [len(state[f"attn_stack.pos_embd.emb.d_{axis}"]) for axis in range(3)]
            arguments = {**arguments, "downsample": [frames // grid[0], size // grid[1], size // grid[2]]}
        network = VQVAE(**weights.vqvae_config(first_state, arguments))
    weights.load_vqvae(network, first_state, str(path))
    facts = source_facts(path)
    first = VideoVQVAE(ClipSpec(frames, size, size, network.channels, fps), network)
    header = {**describe_model(first, first.clip_spec, None), "stage": "vqvae", "clips": 0, "source": [facts]}
    export, lines = Export(header, first.state_dict()), [counted("VQ-VAE", network, len(first_state))]
    if not is_prior:
        return export, [*lines, f"clips of {frames} frames of {size}x{size} pixels"]
    second, note = _prior(state, arguments, first, class_names, path)
    header = {**describe_model(second, second.clip_spec, None), "stage": "prior", "clips": 0, "source": [facts]}
    header["init_args"]["codec"] = {"path": f"{RUN}codec", "weights": "raw", "sha256": None}
    own = {name: value for name, value in second.state_dict().items() if not name.startswith("codec.")}
    return Export(header, own, parts={"codec": export}), [*lines, note]


def _read(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    content = read_official(path, allow=_ALLOWED)
    state, given = content.get("state_dict"), content.get("hyper_parameters")
    arguments = given.get("args") if isinstance(given, Mapping) else None
    arguments = arguments.get("state") if isinstance(arguments, Mapping) and "state" in arguments else arguments
    if not isinstance(state, Mapping) or not isinstance(arguments, Mapping):
        raise UserError("not a VideoGPT checkpoint: no `state_dict` and `hyper_parameters.args` in it", str(path))
    return state, arguments


def _prior(
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    first: VideoVQVAE,
    class_names: tuple[str, ...],
    path: Path,
) -> tuple[VideoGPT, str]:
    own = weights.prior_state(state)
    with expecting("VideoGPT", path):
        network = CodeTransformer(**weights.prior_config(own, arguments))
        classes = own["norm.w.weight"].shape[0] if network.class_conditional else 0
    names = class_names if len(class_names) == classes else tuple(map(str, range(classes)))
    spec = first.clip_spec
    clip = ClipSpec(spec.frames, spec.height, spec.width, spec.channels, spec.fps, names, ("label",) if names else ())
    model = VideoGPT(clip, network, first)
    weights.load_prior(network, own, str(path))
    return model, counted("prior", network, len(own))
