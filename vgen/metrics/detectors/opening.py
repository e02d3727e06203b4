"""Opening detectors from files, or with the weights of a recipe."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vgen.errors import UserError, did_you_mean
from vgen.files import sha256 as file_hash
from vgen.metrics.detectors import c3d, i3d, recipe, registry
from vgen.metrics.detectors.base import Detector, Identity
from vgen.metrics.detectors.flow import FlowEstimator
from vgen.metrics.detectors.image import ClipDetector, DinoDetector, InceptionDetector
from vgen.metrics.detectors.videomae import GIANT, VideoMAEDetector, VisionTransformer, sine_table
from vgen.weights.torchscript import is_torchscript, read_torchscript
from vgen.weights.unpickle import read_official


def open_detector(
    name: str,
    path: str | Path | None = None,
    *,
    epsilon: float = 1e-3,
    spatial: i3d.Spatial = "stretch",
    batch: int = 16,
    sha256: str | None = None,
    script: Literal["tensors", "run"] = "tensors",
) -> Detector:
    """Opens a detector from its released file.

    Of a TorchScript file the tensors are taken and put into our own network; its code is not run, as it may do what it
    likes. `script="run"` runs it nevertheless, for a file that is named by `path` and vouched for by `sha256`.

    Args:
        name: `i3d`, `c3d`, `inception`, `videomae`, `clip` or `dino`.
        path: The file, or the folder of a transformers model; None looks where `registry.find` does.
        epsilon: Of I3D's batch norms.
        spatial: How I3D brings frames to 224 pixels.
        batch: Clips in each pass.
        sha256: Expected hash of the file.
        script: What to do with a TorchScript file.

    Returns:
        The detector, frozen, on the CPU.

    Raises:
        UserError: No such detector; file missing, damaged or another one.
    """
    names = ("i3d", *_OPENERS)
    if name not in names:
        hint = did_you_mean(name, names) or f"there are: {', '.join(names)}"
        raise UserError(f"no detector of clips {name!r}", where="detectors", hint=hint)
    found = registry.find(name, path)
    digest = _hash(found)
    if sha256 is not None and digest != sha256.lower():
        raise UserError(f"{found.name} has SHA-256 {digest}, not {sha256}", where=str(found))
    identity = Identity(name, "published", digest)
    if name != "i3d":
        return _OPENERS[name](found, identity, batch)
    if script == "run" and is_torchscript(found):
        if path is None or sha256 is None:
            raise UserError(
                "running a TorchScript file runs the code in it: name the file and its SHA-256",
                where=str(found),
                hint=f"path and sha256 (it is {digest}); or script='tensors', which runs nothing",
            )
        return i3d.ScriptedI3D(torch.jit.load(str(found), map_location="cpu"), identity, batch)
    return i3d.I3DDetector(_i3d(found, epsilon), identity, spatial, batch=batch)


def random_detector(
    name: Literal["i3d", "c3d"],
    *,
    epsilon: float = 1e-3,
    spatial: i3d.Spatial = "stretch",
    batch: int = 16,
    salt: str = "",
) -> Detector:
    """The full-size network with the weights of `vgen.metrics.detectors.recipe`. Its numbers are called `..._random`.

    Args:
        name: `i3d` or `c3d`.
        epsilon: Of I3D's batch norms.
        spatial: How I3D brings frames to 224 pixels.
        batch: Clips in each pass.
        salt: Another salt gives other weights.
    """
    identity = Identity(name, "random", hashlib.sha256(f"recipe/{name}/{salt}".encode()).hexdigest(), {"salt": salt})
    if name == "i3d":
        network = i3d.InceptionI3d(epsilon=epsilon)
        network.load_state_dict(recipe.batch_norm_network(network.state_dict(), salt))
        return i3d.I3DDetector(network, identity, spatial, batch=batch)
    if name == "c3d":
        with torch.device("meta"):  # no time for initial values that are replaced at once
            classifier = c3d.C3D()
        c3d.load_state(classifier, *recipe.chainer_c3d(c3d.release_shapes(classifier), salt))
        return c3d.C3DDetector(classifier, identity, batch)
    raise UserError(f"there are recipe weights for i3d and c3d, not for {name!r}", where="random_detector")


def _i3d(path: Path, epsilon: float) -> i3d.InceptionI3d:
    state = read_torchscript(path) if is_torchscript(path) else read_official(path)
    known = "Conv3d_1a_7x7.conv3d.weight"
    # A file of training or a script may have the network under a name.
    prefix = next((key.removesuffix(known) for key in state if key.endswith(known)), None)
    if prefix is None:
        shown = ", ".join(list(state)[:4])
        raise UserError(
            f"no I3D of the known layout: {known} is not in it, but {shown}, ...",
            where=str(path),
            hint="i3d_pretrained_400.pt has that layout; a TorchScript file can be run as it is by script='run'",
        )
    network = i3d.InceptionI3d(epsilon=epsilon)
    names = {f"{prefix}{key}": key for key in network.state_dict()}
    try:
        i3d.load_state(network, {names[key]: value for key, value in state.items() if key in names})
    except RuntimeError as error:
        raise UserError(f"no I3D of Kinetics-400: {_last_line(error)}", where=str(path)) from error
    return network


def _c3d(path: Path, identity: Identity, batch: int) -> Detector:
    mean_path = path.parent / registry.card("c3d").companions[0]
    with torch.device("meta"):
        network = c3d.C3D()
    try:
        c3d.load_state(network, c3d.read_npz(path), c3d.read_mean(mean_path))
    except RuntimeError as error:
        raise UserError(f"no C3D of UCF-101: {_last_line(error)}", where=str(path)) from error
    settings = {"mean_sha256": file_hash(mean_path)}
    return c3d.C3DDetector(network, Identity(identity.name, identity.kind, identity.sha256, settings), batch)


def _videomae(path: Path, identity: Identity, batch: int) -> Detector:
    state: dict[str, Tensor] = read_official(path)
    for key in ("model", "module"):
        if isinstance(state.get(key), dict):
            state = state[key]  # type: ignore[assignment]
    with torch.device("meta"):  # a billion parameters: no second set of them
        network = VisionTransformer(**GIANT)  # type: ignore[arg-type]
    network.pos_embed = sine_table(math.prod(network.grid), int(GIANT["embed_dim"]))
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"no VideoMAE-v2 ViT-g: {_last_line(error)}", where=str(path)) from error
    return VideoMAEDetector(network, identity, batch)


def _inception(path: Path, identity: Identity, batch: int) -> Detector:
    from torchmetrics.image.fid import NoTrainInceptionV3

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path), antialias=False)
    return InceptionDetector(network, identity, batch)


def _clip(path: Path, identity: Identity, batch: int) -> Detector:
    from transformers import AutoTokenizer, CLIPModel

    model = _transformers(CLIPModel, path)
    has_tokens = any((path / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    tokenizer = _transformers(AutoTokenizer, path) if has_tokens else None
    return ClipDetector(model, tokenizer, identity, batch)


def _dino(path: Path, identity: Identity, batch: int) -> Detector:
    from transformers import ViTModel

    return DinoDetector(_transformers(ViTModel, path, add_pooling_layer=False), identity, batch)


def _transformers(kind: Any, path: Path, **settings: Any) -> Any:
    try:
        return kind.from_pretrained(str(path), local_files_only=True, **settings)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"transformers cannot open it: {what}", where=str(path)) from error


def open_flow(path: str | Path | None = None, pairs: int = 16) -> FlowEstimator:
    """Opens torchvision's RAFT.

    Args:
        path: File of its state dict; None looks where `registry.find` does.
        pairs: Pairs of frames in each pass.

    Raises:
        UserError: The file is missing or another one.
    """
    from torchvision.models.optical_flow import raft_large

    found = registry.find("raft", path)
    network = raft_large(weights=None)
    try:
        network.load_state_dict(read_official(found))
    except RuntimeError as error:
        raise UserError(f"no RAFT large: {_last_line(error)}", where=str(found)) from error
    return FlowEstimator(network, Identity("raft", "published", file_hash(found)), pairs)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _hash(path: Path) -> str:
    """Of a file, or of the weights (and configuration) in a folder."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in (".safetensors", ".bin", ".json", ".txt") and file.is_file():
            digest.update(f"{file.name}{file_hash(file)}".encode())
    return digest.hexdigest()


_OPENERS: dict[str, Callable[[Path, Identity, int], Detector]] = {
    "c3d": _c3d,
    "inception": _inception,
    "videomae": _videomae,
    "clip": _clip,
    "dino": _dino,
}
