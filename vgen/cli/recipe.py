"""Reads recipes: `--config` files with `stages:` and `all_stages:`, and turns a command line into one for the parser.

A recipe holds `stages: {name: <a complete LightningCLI fit config>}`. The names come from the first `--config`. What
stands under `all_stages:` of any file is merged into every stage, below what the same file says of the stage itself,
so that one overlay (bf16, one GPU, W&B) fits every recipe.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vgen.errors import UserError, did_you_mean

COMMANDS = ("fit", "validate", "test", "predict")
TOP_LEVEL_KEYS = ("$schema", "run_dir", "all_stages", "stages")
STAGE_KEYS = ("seed_everything", "trainer", "model", "data", "init_from")


@dataclass
class CommandLine:
    """A command line, read as far as the parser needs it to be built.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        stage_names: Stages in training order.
        arguments: Arguments for the parser: configs as JSON text with `all_stages` merged, overrides per stage.
        config_paths: The files that were named.
        options: What concerns the run and not its configuration: `only`, `resume`, `overwrite`, `stage`.
    """

    command: str
    stage_names: list[str]
    arguments: list[str]
    config_paths: list[Path]
    options: dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML as jsonargparse reads it: `2e-4` is a number too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    __import__("re").compile(
        r"^[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
        r"|^\.[0-9_]+(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def load_yaml(path: Path) -> dict[str, Any]:
    """Reads one config file.

    Raises:
        UserError: When it is missing, is no YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        known = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise UserError("no such config file", str(path), did_you_mean(str(path), known)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config file: {error}", str(path)) from error
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UserError(f"not valid YAML: {getattr(error, 'problem', error)}", where) from error
    if not isinstance(content, dict):
        raise UserError("a config file must hold keys and values", str(path))
    return content


def merge(base: Any, over: Any) -> Any:
    """Merges `over` into `base`: mappings key by key, anything else is replaced; `key+` entries are appended.

    A `key+` of the base is also appended where `over` says the whole `key`: what `all_stages` adds, it adds to every
    stage.
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    result = dict(base)
    for key, value in over.items():
        if key.endswith("+") and (key in result or key[:-1] in result):
            name = key if key in result else key[:-1]
            result[name] = _listed(result[name]) + _listed(value)
        elif f"{key}+" in result and key not in result:
            result[key] = _listed(value) + _listed(result.pop(f"{key}+"))
        else:
            result[key] = merge(result.get(key), value)
    return result


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _expand(content: dict[str, Any], stage_names: list[str], path: Path) -> dict[str, Any]:
    """Checks the top-level keys and the stage names, and merges `all_stages` into every stage."""
    for key in content:
        if key not in TOP_LEVEL_KEYS:
            raise UserError(f"unknown key {key!r}", str(path), did_you_mean(key, TOP_LEVEL_KEYS))
    stages = content.get("stages") or {}
    if not isinstance(stages, dict) or not all(isinstance(s, dict) for s in stages.values()):
        raise UserError("stages: must map each stage's name to its config", str(path))
    for name in stages:
        if name not in stage_names:
            hint = did_you_mean(name, stage_names) or f"the recipe has {', '.join(stage_names)}"
            raise UserError(f"unknown stage {name!r}", f"{path}: stages.{name}", hint)
    shared = content.get("all_stages") or {}
    for place, config in (("all_stages", shared), *((f"stages.{name}", stage) for name, stage in stages.items())):
        for key in config:
            if key.removesuffix("+") not in STAGE_KEYS:
                hint = did_you_mean(key, STAGE_KEYS) or f"a stage has {', '.join(STAGE_KEYS)}"
                raise UserError(f"unknown key {key!r}", f"{path}: {place}.{key}", hint)
    expanded = {n: merge(shared, stages.get(n, {})) for n in stage_names if shared or n in stages}
    result = {key: value for key, value in content.items() if key == "run_dir"}
    return {**result, "stages": expanded} if expanded else result


def read_command_line(command: str, args: list[str]) -> CommandLine:
    """Finds the configs and stage names in a command line and rewrites it for the parser.

    Raises:
        UserError: When no recipe is named, or a config names a stage or key that the recipe does not have.
    """
    args, options = _take_options(command, args)
    paths: list[Path] = []
    slots: list[int] = []
    rewritten: list[str] = []
    position = 0
    while position < len(args):
        option, equals, value = args[position].partition("=")
        if option in ("--config", "-c"):
            if not equals:
                position += 1
                if position == len(args):
                    raise UserError("--config needs a file")
                value = args[position]
            paths.append(Path(value))
            slots.append(len(rewritten) + 1)
            rewritten += ["--config", value]
        else:
            rewritten.append(args[position])
        position += 1
    if not paths:
        raise UserError("no recipe given", f"vgen {command}", "name one: --config lightning_configs/lfdm_mug.yaml")
    contents = [load_yaml(path) for path in paths]
    first = contents[0].get("stages")
    if not isinstance(first, dict) or not first:
        hint = "an overlay is stacked behind a recipe" if "all_stages" in contents[0] else "see lightning_configs/"
        raise UserError("the first --config must be a recipe with stages:", str(paths[0]), hint)
    names = [str(name) for name in first]
    for slot, content, path in zip(slots, contents, paths, strict=True):
        rewritten[slot] = json.dumps(_expand(content, names, path))
    for name in names:
        for part in ("model", "data"):
            if not any("class_path" in _part(json.loads(rewritten[slot]), name, part) for slot in slots):
                hint = "is the first --config an overlay? it is stacked behind a recipe"
                raise UserError(f"stage {name!r} names no {part} class", f"{paths[0]}: stages.{name}.{part}", hint)
    return CommandLine(command, names, _spread_overrides(rewritten, names), paths, options)


def _part(content: dict[str, Any], stage: str, part: str) -> dict[str, Any]:
    value = content.get("stages", {}).get(stage, {}).get(part)
    return {"class_path": value} if isinstance(value, str) else value or {}


def _take_options(command: str, args: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes out the options that are no part of the configuration."""
    flags = ("resume", "overwrite") if command == "fit" else ()
    named = ("only",) if command == "fit" else ("stage",)
    options: dict[str, Any] = {**dict.fromkeys(flags, False), **dict.fromkeys(named)}
    rest: list[str] = []
    queue = list(args)
    while queue:
        arg = queue.pop(0)
        name, equals, value = arg.removeprefix("--").partition("=")
        if arg.startswith("--") and name in flags and not equals:
            options[name] = True
        elif arg.startswith("--") and name in named:
            if not equals and not queue:
                raise UserError(f"--{name} needs the name of a stage", f"vgen {command}")
            options[name] = value if equals else queue.pop(0)
        else:
            rest.append(arg)
    return rest, options


def _spread_overrides(args: list[str], names: list[str]) -> list[str]:
    """Repeats `--all_stages.key=value` for every stage, and checks the stage in `--stages.<name>.key`."""
    result: list[str] = []
    skip = False
    for index, arg in enumerate(args):
        if skip:
            skip = False
            continue
        if arg.startswith("--stages."):
            name = arg.removeprefix("--stages.").split(".")[0].split("=")[0]
            if name not in names:
                raise UserError(
                    f"unknown stage {name!r}", arg, did_you_mean(name, names) or f"there: {', '.join(names)}"
                )
        if arg.startswith("--all_stages."):
            option, equals, value = arg.partition("=")
            if not equals:
                if index + 1 == len(args):
                    raise UserError(f"{option} needs a value")
                value, skip = args[index + 1], True
            result += [f"--stages.{name}.{option.removeprefix('--all_stages.')}={value}" for name in names]
        else:
            result.append(arg)
    return result
