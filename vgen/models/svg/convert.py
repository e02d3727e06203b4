"""Official SVG checkpoints (pickles of whole modules) -> exports that `vgen.load` and `init_from:` open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vgen.models.svg import weights
from vgen.models.svg.module import SVG
from vgen.models.svg.networks import SVGNetwork
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import counted, expecting, source_facts

#: DataModule of each preset: its frame rate goes into the converted model.
DATA = {"moving_mnist": "MovingMNIST", "kth": "KTH", "bair": "BAIR"}
#: Past and predicted frames in training, and beta, as the official README has them: for files without options.
PUBLISHED = {"moving_mnist": (5, 10, 1e-4), "kth": (10, 10, 1e-6), "bair": (2, 10, 1e-4)}


def convert(
    preset: Literal["moving_mnist", "kth", "bair"], class_names: tuple[str, ...], fps: float, model: str
) -> tuple[Export, list[str]]:
    """Converts an official file; sizes, widths and depths are read from the weights, the rest from its options.

    Args:
        preset: Data set, for the frame rate and what the options do not say.
        class_names: Text of each label index; SVG does not use them.
        fps: Frame rate of the clips.
        model: The file (model.pth, svglp_bair.pth, svglp_smmnist2.pth).

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file is none of these, or holds more than modules, tensors and options.
    """
    path = Path(model)
    state, options = weights.read_modules(path)
    with expecting("SVG", path):
        network = SVGNetwork(**weights.network_config(state))
        side, channels = weights.frame_size(state)
    published = PUBLISHED[preset]
    past, future = (_option(options, key, published[i]) for i, key in enumerate(("n_past", "n_future")))
    fixed = network.prior is None
    converted = SVG(
        ClipSpec(int(past) + int(future), side, side, channels, fps),
        network,
        int(past),
        beta=float(_option(options, "beta", published[2])),
        last_frame_skip=bool(_option(options, "last_frame_skip", False)),
        posterior="mean" if fixed else "sample",
    )
    weights.load(network, state, str(path))
    kind = f"SVG-{'FP' if fixed else 'LP'} ({network.backbone}, {side} px, {channels} channels)"
    lines = [
        counted(kind, network, len(state)),
        f"{int(past)} past frames, trained to predict {int(future)}"
        + ("" if options else " (published: the file has no options)"),
    ]
    header = {**describe_model(converted, converted.clip_spec, None), "stage": "prediction", "clips": 0}
    header["source"] = [source_facts(path)]
    return Export(header, converted.state_dict()), lines


def _option(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    return value if isinstance(value, (int, float)) else default
