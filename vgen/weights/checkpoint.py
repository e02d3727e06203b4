"""The one reader and writer of vgen's own model files.

A model file is a Lightning checkpoint of a run, or an export folder (`config.json` and safetensors). Both describe
themselves: class, nested constructor arguments and `ClipSpec`, as plain data, so that nothing but the file is needed to
build the model again. Everything is read with `weights_only=True`.

Paths inside a description that begin with `run://` are relative to the run directory or export folder that holds it.
"""

import importlib
import importlib.util
import json
import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from vgen.configurable import class_path, require_described
from vgen.errors import UserError, did_you_mean
from vgen.files import sha256
from vgen.video.spec import ClipSpec
from vgen.weights.handoff import Handoff, WarmStart
from vgen.weights.sharded import shard_like

FORMAT = 1  # raised when a reader of an older vgen could not understand the file
RUN = "run://"
RUN_ID = "run_id"  # file in a stage's folder: which training its checkpoints are of
WeightsChoice = Literal["auto", "raw", "ema"]
# Lines of jsonargparse that only say in which union or key something is wrong.
_WRAPPING = re.compile(r"Does not validate|Subtypes:|Errors:|Given value|Problem with given class_path|Parser key.*:$")
_TRUSTED_PACKAGES = ("vgen", "torch", "diffusers", "transformers")


@dataclass
class ModelFile:
    """Content of a model file.

    Args:
        path: The file that holds the raw weights.
        root: Run directory or export folder against which `run://` paths stand.
        header: The self-description: format, family, stage, class_path, init_args, clip_spec, step, clips.
        state: Raw weights by name.
        ema: Averaged weights of the trainable parameters by name; None where the run kept none.
    """

    path: Path
    root: Path
    header: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    ema: dict[str, Tensor] | None = field(repr=False, default=None)

    def weights(self, which: WeightsChoice) -> dict[str, Tensor]:
        """Weights by name: `raw`, `ema` (with the raw buffers), or `auto`: ema where there is one."""
        if which == "raw" or (which == "auto" and self.ema is None):
            return self.state
        if self.ema is None:
            raise UserError("no averaged (ema) weights in this file", str(self.path), "use weights: raw")
        return {**self.state, **self.ema}


def describe_model(model: nn.Module, clip_spec: ClipSpec, run_dir: str | Path | None) -> dict[str, Any]:
    """Builds the self-description of a model that goes into a checkpoint.

    Args:
        model: A `Configurable` module.
        clip_spec: The clips that it was built for.
        run_dir: Run directory; paths below it are stored relative to it.

    Raises:
        UserError: When a constructor argument is not plain data (an injected object that records nothing).
    """
    path = class_path(type(model))
    init_args = require_described(dict(model.configuration), type(model).__name__)  # type: ignore[arg-type]
    init_args.pop("clip_spec", None)
    parts = path.split(".")
    family = parts[2] if parts[:2] == ["vgen", "models"] else parts[0]
    description = {"class_path": path, "init_args": _relative(init_args, run_dir)}
    return {"format": FORMAT, "family": family, **description, "clip_spec": clip_spec.to_dict()}


def _relative(value: Any, run_dir: str | Path | None) -> Any:
    """Replaces paths below the run directory in every handoff by `run://` ones, and notes the file's hash."""
    if isinstance(value, list):
        return [_relative(item, run_dir) for item in value]
    if not isinstance(value, dict):
        return value
    if {"path", "weights"} <= value.keys() and isinstance(value["path"], str):
        target = Path(value["path"]).absolute()
        if not target.exists():
            return value
        root = None if run_dir is None else Path(run_dir).absolute()
        inside = root is not None and target.is_relative_to(root)
        path = RUN + target.relative_to(root).as_posix() if inside else str(target)  # type: ignore[arg-type]
        return {**value, "path": path, "sha256": value.get("sha256") or sha256(weights_file(target))}
    return {key: _relative(item, run_dir) for key, item in value.items()}


def _absolute(value: Any, root: Path) -> Any:
    if isinstance(value, str) and value.startswith(RUN):
        return str((root / value.removeprefix(RUN)).absolute())
    if isinstance(value, list):
        return [_absolute(item, root) for item in value]
    if isinstance(value, dict):
        return {key: _absolute(item, root) for key, item in value.items()}
    return value


def stages_of_run(run_dir: Path) -> list[str]:
    """Names of the stages of a run directory that have a checkpoint, in the order in which they were trained."""
    import yaml

    config = run_dir / "config.yaml"
    order = list((yaml.safe_load(config.read_text()) or {}).get("stages", {})) if config.is_file() else []
    found = [p.parent.parent.name for p in sorted(run_dir.glob("*/checkpoints/last.ckpt"))]
    return [name for name in order if name in found] + [name for name in found if name not in order]


def weights_file(path: str | Path, stage: str | None = None) -> Path:
    """Finds the file that holds the weights of a checkpoint, stage directory, run directory or export folder.

    Raises:
        UserError: When there is none.
    """
    target = Path(path)
    if target.is_file():
        return target
    if (target / "model.safetensors").is_file():
        if stage is not None:
            raise UserError("an export holds one model, not stages", str(path), "leave out the stage")
        return target / "model.safetensors"
    if (target / "checkpoints" / "last.ckpt").is_file() and stage is None:
        return target / "checkpoints" / "last.ckpt"
    if target.is_dir():
        stages = stages_of_run(target)
        if stage is not None and stages and stage not in stages:
            raise UserError(f"no trained stage {stage!r}", str(path), did_you_mean(stage, stages) or f"there: {stages}")
        if stages:
            return target / (stage or stages[-1]) / "checkpoints" / "last.ckpt"
        raise UserError(
            "no checkpoint in this folder",
            str(path),
            "expected a run directory (<stage>/checkpoints/last.ckpt) or an export (config.json, model.safetensors)",
        )
    siblings = [str(p) for p in target.parent.iterdir()] if target.parent.is_dir() else []
    raise UserError("no such file or folder", str(path), did_you_mean(str(path), siblings))


def read_torch_file(path: Path) -> Any:
    """Reads a torch file with `weights_only=True`.

    Raises:
        UserError: When the file is damaged, or holds objects that could run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError("no such file", str(path)) from error
    except Exception as error:  # torch raises half a dozen types for a damaged file
        named = re.search(r"(?:Unsupported global: |unsupported )GLOBAL (\S+)", str(error))
        if named or "WeightsUnpickler" in str(error):
            what = "not a plain weights file (it holds objects that could run code)"
            reason, hint = named[1].rstrip(".") if named else "", "official files are read by `vgen convert`"
        else:
            what, hint = "damaged or not a checkpoint", "delete it, or use another checkpoint"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"{what}: {reason}" if reason else what, str(path), hint) from error


def read_model_file(path: str | Path, stage: str | None = None) -> ModelFile:
    """Reads a checkpoint, stage directory, run directory or export folder.

    Raises:
        UserError: When there is no such file, or it is not one of vgen's.
    """
    file = weights_file(path, stage)
    if file.suffix == ".safetensors":
        return _read_export(file)
    content = read_torch_file(file)
    header = content.get("vgen") if isinstance(content, dict) else None
    if not isinstance(header, dict):
        raise UserError(
            "not a vgen checkpoint (it does not describe itself)",
            str(file),
            "official files: see `vgen convert --help`",
        )
    _check_format(header, file)
    check_owner(header, file)
    ema = next(
        (s["shadow"] for s in content.get("callbacks", {}).values() if isinstance(s, dict) and "shadow" in s), None
    )
    root = file.parent.parent.parent if file.parent.name == "checkpoints" else file.parent
    return ModelFile(file, root, header, content["state_dict"], ema)


def check_owner(header: dict[str, Any], file: Path, to_resume: bool = False) -> None:
    """Refuses a checkpoint that lies in a stage's folder, but was written by another stage or run.

    `<stage>/run_id` names the training that the folder belongs to; its checkpoints carry the same id.

    Args:
        header: Self-description of the checkpoint.
        file: Where it lies.
        to_resume: Also refuse a run's checkpoint in a folder without an id: somebody has put it there.

    Raises:
        UserError: The ids differ.
    """
    folder = file.absolute().parent.parent
    note = folder / RUN_ID
    owner = note.read_text().strip() if note.is_file() else None
    if file.parent.name != "checkpoints" or (owner is None and not to_resume):
        return
    stage, run = header.get("stage"), header.get("run")
    if run == owner and (owner is None or stage in (None, folder.name)):
        return
    foreign = f"of stage {stage!r}" if run == owner else "of another run"
    raise UserError(
        f"{file.name} is a checkpoint {foreign}, not of this training",
        str(file),
        "put the right file back, or begin anew with --overwrite; init_from: {path: ...} starts from other weights",
    )


def _read_export(file: Path) -> ModelFile:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = file.parent / "config.json"
    if not config.is_file():
        raise UserError("an export needs config.json beside its weights", str(file.parent))
    try:
        header = json.loads(config.read_text(encoding="utf-8"))
        state = load_file(file)
        averaged = file.parent / "ema.safetensors"
        ema = load_file(averaged) if averaged.is_file() else None
    except (ValueError, OSError, SafetensorError) as error:
        raise UserError(f"damaged export: {error}", str(file.parent)) from error
    if not isinstance(header, dict):
        raise UserError("damaged export: config.json holds no mapping", str(config))
    _check_format(header, config)
    return ModelFile(file, file.parent, header, state, ema)


def _check_format(header: dict[str, Any], file: Path) -> None:
    if header.get("format", 0) > FORMAT:
        raise UserError(f"written by a later vgen (format {header['format']})", str(file), "upgrade vgen")
    if lost := [key for key in ("class_path", "init_args", "clip_spec") if key not in header]:
        raise UserError(f"the self-description lacks {', '.join(lost)}", str(file), "was it changed by hand?")
    try:
        ClipSpec.from_dict(header["clip_spec"])
    except (TypeError, ValueError) as error:
        raise UserError(f"the self-description is damaged: {error}", str(file)) from error


def _check_trust(value: Any, file: Path) -> None:
    """Refuses classes from packages that neither vgen uses nor this program has imported itself."""
    if isinstance(value, list):
        for item in value:
            _check_trust(item, file)
    elif isinstance(value, dict):
        path = value.get("class_path")
        if isinstance(path, str):
            module = path.rpartition(".")[0]
            if module.split(".")[0] not in _TRUSTED_PACKAGES and module not in sys.modules:
                known = importlib.util.find_spec(module.split(".")[0]) is not None
                hint = (
                    f"import {module} first if you trust it" if known else f"install the package {module.split('.')[0]}"
                )
                raise UserError(f"the model needs code of another package: {path}", str(file), hint)
        for item in value.values():
            _check_trust(item, file)


def _for_use(value: Any) -> Any:
    """Leaves out what the described classes need for training alone (their `training_only`), at any depth."""
    if isinstance(value, list):
        return [_for_use(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _for_use(item) for key, item in value.items()}
    if isinstance(value.get("class_path"), str) and isinstance(value.get("init_args"), dict):
        module, _, name = value["class_path"].rpartition(".")
        try:
            cls = getattr(importlib.import_module(module), name, None)
        except (ImportError, ValueError):
            return value  # the parser says what is wrong with the path
        unused = getattr(cls, "training_only", ())
        value["init_args"] = {key: None if key in unused else item for key, item in value["init_args"].items()}
    return value


def instantiate(description: dict[str, Any], clip_spec: ClipSpec, where: str) -> nn.Module:
    """Builds a module from `{"class_path", "init_args"}`, with all nested objects.

    Raises:
        UserError: When an argument does not fit the class.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "model", required=True)
    init_args = {**(description.get("init_args") or {}), "clip_spec": clip_spec.to_dict()}
    try:
        config = parser.parse_object({"model": {"class_path": description["class_path"], "init_args": init_args}})
        with warnings.catch_warnings():
            # jsonargparse renames the method in 5.0; both names work on the versions that pyproject.toml allows.
            warnings.filterwarnings("ignore", message=r"(?s).*instantiate_classes")
            return parser.instantiate_classes(config).model
    except UserError:
        raise
    except Exception as error:
        # The parser wraps what a constructor raised, in several layers where the argument is a union of types.
        chain: list[BaseException] = [error]
        while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(inner)
        if (mistake := next((e for e in chain if isinstance(e, UserError)), None)) is not None:
            raise mistake from error
        lines = [line.strip(" -") for e in chain for line in str(e).splitlines() if line.strip(" -")]
        telling = [line for line in lines if not _WRAPPING.match(line)] or [type(error).__name__]
        raise UserError(f"cannot build {description['class_path']}: {telling[0][:200]}", where) from error


def build_model(file: ModelFile, weights: WeightsChoice = "auto") -> nn.Module:
    """Builds the model that a file describes, loads its weights and returns it in eval mode on the CPU.

    Raises:
        UserError: When its code is not trusted (see `_check_trust`), or names or shapes do not fit.
    """
    model = build_untrained(file)
    # of what training alone needs (see `_for_use`), there are weights in the file, but no networks here
    unused = tuple(f"{name}." for name in getattr(type(model), "training_only", ()))
    state = {key: value for key, value in file.weights(weights).items() if not key.startswith(unused)}
    load_weights(model, state, str(file.path))
    return model


def build_untrained(file: ModelFile) -> nn.Module:
    """Builds the model that a file describes with weights as they are drawn, in eval mode on the CPU.

    What it took over from earlier stages is trained.

    Raises:
        UserError: When its code is not trusted (see `_check_trust`).
    """
    description = {"class_path": file.header["class_path"], "init_args": file.header["init_args"]}
    _check_trust(description, file.path)
    description = _for_use(description)
    model = instantiate(_absolute(description, file.root), ClipSpec.from_dict(file.header["clip_spec"]), str(file.path))
    model.run_dir = str(file.root)  # type: ignore[assignment]
    return model.eval()


def load_weights(model: nn.Module, state: dict[str, Tensor], where: str, include: tuple[str, ...] = ()) -> list[str]:
    """Loads weights strictly, or only the names with one of the prefixes in `include`; returns the names loaded.

    Raises:
        UserError: Naming the first missing, unexpected or misshapen entry.
    """
    own = {key: value for key, value in model.state_dict().items() if not include or key.startswith(include)}
    given = {key: value for key, value in state.items() if not include or key.startswith(include)}
    if include and not own:
        raise UserError(f"no weight of the model begins with any of {list(include)}", where)
    missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unexpected:
        key, kind = (missing[0], "lacks") if missing else (unexpected[0], "has an unknown")
        hint = did_you_mean(key, unexpected or missing if missing else own) or "is it a checkpoint of another model?"
        count = len(missing) + len(unexpected)
        raise UserError(f"the file {kind} weight {key!r} ({count} names differ)", where, hint)
    for key, value in own.items():
        if given[key].shape != value.shape:
            raise UserError(
                f"weight {key!r} has shape {tuple(given[key].shape)}, the model wants {tuple(value.shape)}",
                where,
                "the configuration differs from the one the file was trained with",
            )
    model.load_state_dict({key: shard_like(value, own[key]) for key, value in given.items()}, strict=False)
    return sorted(given)


def open_handoff(handoff: Handoff) -> nn.Module:
    """Builds the model that a handoff names, and checks that the file is the one that was trained with.

    Raises:
        UserError: When the file is missing or has changed since.
    """
    if handoff.path.startswith("stage://"):
        raise UserError(
            f"{handoff.path} stands for a stage of a recipe, and this model is not built by one",
            hint="give the path of a checkpoint, run directory or export instead",
        )
    file = weights_file(handoff.path)
    if handoff.sha256 is not None and sha256(file) != handoff.sha256:
        raise UserError("the file has changed since this model was trained with it", str(file), "restore the old file")
    return build_model(read_model_file(handoff.path), handoff.weights)


def warm_start(model: nn.Module, start: WarmStart) -> list[str]:
    """Copies weights from another file into a model before training; returns the names copied."""
    file = read_model_file(start.path)
    state = file.weights(start.weights)
    if not start.strict:
        own = model.state_dict()
        state = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        include = tuple(start.include) or ("",)
        state = {key: value for key, value in state.items() if key.startswith(include)}
        if not state:
            raise UserError("no weight of the file fits the model", start.path)
        model.load_state_dict(state, strict=False)
        return sorted(state)
    return load_weights(model, state, start.path, tuple(start.include))
