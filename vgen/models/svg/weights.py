"""Official SVG checkpoints -> our state dicts.

A checkpoint is a pickle of whole modules (`encoder`, `decoder`, `frame_predictor`, `posterior`, `prior`) and options.
It is read without importing their classes: what every module's `__dict__` holds is enough for a state dict.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vgen.errors import UserError
from vgen.weights.keymap import KeyMap, KeyReport, Rule
from vgen.weights.unpickle import read_official

_LEVELS = range(1, 8)  # of encoders and decoders; 128 pixels have five
_PARTS = ((0, "conv"), (1, "norm"))

KEYS = KeyMap(
    [
        *(
            rule
            for k in _LEVELS
            for i, part in _PARTS
            for rule in (
                Rule(rf"^encoder\.c{k}\.main\.{i}\.", f"encoder.levels.{k - 1}.0.{part}."),
                Rule(rf"^encoder\.c{k}\.(\d)\.main\.{i}\.", rf"encoder.levels.{k - 1}.\1.{part}."),
                Rule(rf"^decoder\.upc{k + 1}\.main\.{i}\.", f"decoder.levels.{k - 1}.0.{part}."),
                Rule(rf"^decoder\.upc{k + 1}\.(\d)\.main\.{i}\.", rf"decoder.levels.{k - 1}.\1.{part}."),
            )
        ),
        *(Rule(rf"^encoder\.c\d\.{i}\.(?!main)", f"encoder.head.{part}.") for i, part in _PARTS),
        *(Rule(rf"^decoder\.upc1\.{i}\.(?!main)", f"decoder.foot.{part}.") for i, part in _PARTS),
        Rule(r"^decoder\.upc\d\.[01]\.(weight|bias)$", r"decoder.last.\1"),
        Rule(r"\.lstm\.(\d+)\.((?:weight|bias)_[ih]h)$", r".lstm.\2_l\1"),
        Rule(r"\.output\.0\.", ".output."),
        Rule(r"\.mu_net\.", ".mean."),
        Rule(r"\.logvar_net\.", ".log_variance."),
    ]
)

PARTS = ("encoder", "decoder", "frame_predictor", "posterior", "prior")
#: What the pickles mention besides tensors.
CLASSES = (
    *(f"models.{kind}_{side}.{name}" for kind in ("dcgan", "vgg") for side in (64, 128)
      for name in ("encoder", "decoder", f"{kind}_conv", f"{kind}_upconv", "vgg_layer")),
    "models.lstm.lstm", "models.lstm.gaussian_lstm", "models.lstm.bidirectional_lstm",
    *(f"torch.nn.modules.{name}" for name in (
        "conv.Conv2d", "conv.ConvTranspose2d", "batchnorm.BatchNorm2d", "activation.LeakyReLU", "activation.Tanh",
        "activation.Sigmoid", "pooling.MaxPool2d", "upsampling.UpsamplingNearest2d", "container.Sequential",
        "container.ModuleList", "linear.Linear", "rnn.LSTMCell")),
    "torch.nn.backends.thnn._get_thnn_function_backend",
    "argparse.Namespace",
)  # fmt: skip


def read_modules(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors of an official checkpoint by their official names, and its options.

    Raises:
        UserError: It is none, or holds more than modules, tensors and options.
    """
    content = read_official(path, allow=CLASSES, modules=True)
    if "frame_predictor" not in content:
        raise UserError("not an SVG checkpoint: no `frame_predictor` in it", str(path))
    state: dict[str, Tensor] = {}
    for part in PARTS:
        if part in content:
            state |= {f"{part}.{name}": value for name, value in _tensors(content[part], f"{path}: {part}").items()}
    options = content.get("opt")
    found = options.get("state") if isinstance(options, Mapping) and "state" in options else options
    return state, found if isinstance(found, Mapping) else {}


def _tensors(module: Any, where: str) -> dict[str, Tensor]:
    """Parameters and buffers of a pickled module, by their names in its state dict."""
    inside = module.get("state") if isinstance(module, Mapping) else None
    if not isinstance(inside, Mapping) or "_modules" not in inside:
        raise UserError("not a module of PyTorch", where)
    own = {**(inside.get("_parameters") or {}), **(inside.get("_buffers") or {})}
    found = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    for name, inner in inside["_modules"].items():
        found |= {f"{name}.{key}": value for key, value in _tensors(inner, f"{where}.{name}").items()}
    return found


def load(network: nn.Module, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
    """Loads official weights into a network that is prepared; see `KeyMap.load`.

    The count of BatchNorm's calls, which releases of that time did not have, stays where it is missing.
    """
    counts = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    renamed, _ = KEYS.convert(state)
    missing = {key: value for key, value in counts.items() if key not in renamed}
    return KeyMap([]).load(network, {**renamed, **missing}, where)


def network_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `SVGNetwork` for official weights."""
    head = re.compile(r"encoder\.c(\d)\.0\.weight")
    dim = next(int(value.shape[0]) for key, value in state.items() if head.fullmatch(key))
    vgg = "encoder.c1.0.main.0.weight" in state
    layers = {part: len({key for key in state if re.match(rf"{part}\.lstm\.\d+\.weight_hh", key)}) for part in PARTS}
    return {
        "backbone": "vgg" if vgg else "dcgan",
        "prior": "learned" if "prior.embed.weight" in state else "fixed",
        "frame_dim": dim,
        "latent_dim": int(state["posterior.mu_net.weight"].shape[0]),
        "width": int(state["encoder.c1.0.main.0.weight" if vgg else "encoder.c1.main.0.weight"].shape[0]),
        "rnn_size": int(state["posterior.embed.weight"].shape[0]),
        "predictor_layers": layers["frame_predictor"],
        "posterior_layers": layers["posterior"],
        "prior_layers": layers["prior"] or 1,
    }


def frame_size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Side in pixels and colour channels of the frames that weights are for."""
    vgg = "encoder.c1.0.main.0.weight" in state
    first = state["encoder.c1.0.main.0.weight" if vgg else "encoder.c1.main.0.weight"]
    levels = max(int(match[1]) for key in state if (match := re.match(r"encoder\.c(\d)\.", key))) - 1
    return 4 << levels, int(first.shape[1])
