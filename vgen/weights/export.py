"""Export folders: a model with everything that sampling needs, as safetensors and JSON, free of run and machine.

    config.json         the self-description of the checkpoint, and which file holds which weights
    model.safetensors   raw weights
    ema.safetensors     averaged weights, where the run kept them
    <part>/             the frozen first stage, an export folder of its own; its path in config.json is run://<part>

`vgen.weights.checkpoint` reads them. Official files are converted into the same form.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vgen import __version__
from vgen.errors import UserError
from vgen.files import sha256
from vgen.weights.checkpoint import RUN, ModelFile, read_model_file, weights_file

CONFIG, RAW, EMA = "config.json", "model.safetensors", "ema.safetensors"


@dataclass
class Export:
    """What an export folder is to hold.

    Args:
        header: Self-description; every handoff in it has the path `run://<part>`.
        state: Raw weights by name.
        ema: Averaged weights of the trainable parameters by name.
        parts: Frozen parts by folder name.
    """

    header: dict[str, Any]
    state: Mapping[str, Tensor] = field(repr=False)
    ema: Mapping[str, Tensor] | None = field(repr=False, default=None)
    parts: dict[str, "Export"] = field(default_factory=dict)


def bundle(file: ModelFile) -> Export:
    """Gathers a model and, at any depth, what its handoffs name.

    Of a frozen part the weights that the model was trained with (raw or averaged) are taken, and become its raw ones.

    Raises:
        UserError: A part is missing, or has changed since the model was trained with it.
    """
    export = Export({k: v for k, v in file.header.items() if k != "run"}, file.state, file.ema)
    export.header["init_args"] = _take_parts(file.header["init_args"], file, export.parts, "codec")
    return export


def _take_parts(value: Any, file: ModelFile, parts: dict[str, Export], name: str) -> Any:
    if isinstance(value, list):
        return [_take_parts(item, file, parts, name) for item in value]
    if not isinstance(value, dict):
        return value
    if not is_handoff(value):
        return {key: _take_parts(item, file, parts, key) for key, item in value.items()}
    path = value["path"]
    target = Path(file.root / path.removeprefix(RUN)) if path.startswith(RUN) else Path(path)
    found = weights_file(target)
    if value.get("sha256") not in (None, sha256(found)):
        raise UserError("the file has changed since the model was trained with it", str(found), "restore the old file")
    part = bundle(read_model_file(target))
    if value["weights"] == "ema":
        part.state = ModelFile(found, found.parent, part.header, dict(part.state), _plain(part.ema)).weights("ema")
    part.ema = None
    folder = name
    while folder in parts:
        folder += "_"
    parts[folder] = part
    return {**value, "path": RUN + folder, "weights": "raw", "sha256": None}


def _plain(weights: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    return None if weights is None else dict(weights)


def is_handoff(value: Any) -> bool:
    """Whether a piece of a description names the weights of another file (see `vgen.weights.Handoff`)."""
    return isinstance(value, dict) and {"path", "weights"} <= value.keys() and isinstance(value["path"], str)


def foreign_paths(description: Any, key: str = "init_args") -> Iterator[tuple[str, str]]:
    """Yields (key, path) of what a description names on this machine: another one would not find it."""
    if isinstance(description, dict):
        for name, item in description.items():
            yield from foreign_paths(item, f"{key}.{name}")
    elif isinstance(description, list):
        for index, item in enumerate(description):
            yield from foreign_paths(item, f"{key}[{index}]")
    elif isinstance(description, str) and ("/" in description or "\\" in description) and Path(description).exists():
        yield key, description


def write_export(export: Export, folder: Path) -> dict[str, str]:
    """Writes an export into an existing folder, parts first, so that config.json names their hashes.

    Returns:
        SHA-256 of each weights file of the model itself.
    """
    hashes = {}
    for name, part in export.parts.items():
        (folder / name).mkdir()
        hashes[RUN + name] = write_export(part, folder / name)[RAW]
    files = {RAW: _save(export.state, folder / RAW)}
    if export.ema is not None:
        files[EMA] = _save(export.ema, folder / EMA)
    config = {
        **export.header,
        "init_args": _with_hashes(export.header["init_args"], hashes),
        "vgen": __version__,
        "weights": {name: {"sha256": digest} for name, digest in files.items()},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return files


def _save(weights: Mapping[str, Tensor], path: Path) -> str:
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, value in weights.items():
        value = value.detach().cpu().contiguous()
        if (place := value.untyped_storage().data_ptr()) in memory:
            value = value.clone()  # tensors that share memory cannot be written
        memory.add(place)
        plain[name] = value
    save_file(plain, path)
    return sha256(path)


def _with_hashes(value: Any, hashes: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_hashes(item, hashes) for item in value]
    if not isinstance(value, dict):
        return value
    if is_handoff(value) and value["path"] in hashes:
        return {**value, "sha256": hashes[value["path"]]}
    return {key: _with_hashes(item, hashes) for key, item in value.items()}


def check_target(out: Path, overwrite: bool) -> None:
    """Refuses a folder that holds something, unless it is an export that may be overwritten.

    Raises:
        UserError: The folder is not empty.
    """
    if out.is_file():
        raise UserError("a file of that name is in the way", str(out))
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        ours = "class_path" in json.loads((out / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError("the folder is not empty, and is no export", str(out), "choose a new one")
    if not overwrite:
        raise UserError("the folder is not empty", str(out), "choose a new one, or add --overwrite")
