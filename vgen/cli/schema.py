"""The JSON schema of recipes and overlays, by which editors complete, explain and check them.

jsonargparse can emit a schema of a parser (4.53: `get_completion_script("jsonschema")`), but not of ours: it follows
every imported subclass of `torch.nn.Module`, thousands of them, and stops at the first that is annotated `type[...]`;
and it demands complete configurations, while overlays are partial by nature. So this one is made from the same type
hints and docstrings, and offers the classes that recipes can name: vgen's own, and the optimisers, schedules, callbacks
and loggers of torch and Lightning. A class of any other package is accepted with whatever arguments.
"""

import collections.abc
import dataclasses
import importlib
import inspect
import json
import math
import pkgutil
import types
import typing
from abc import ABCMeta
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

import docstring_parser
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import vgen.models
from vgen.cli.recipe import TOP_LEVEL_KEYS
from vgen.conditioning import Conditioner
from vgen.configurable import class_path
from vgen.data.datamodules import VideoDataModule
from vgen.training import SingleLossModule, VideoModule
from vgen.weights import WarmStart

Schema = dict[str, Any]

# Draft 7 is what the YAML language server of the editors reads.
_DRAFT = "http://json-schema.org/draft-07/schema#"
# What recipes name beside models and data sets.
_OWN = ("losses", "conditioning", "diffusion", "codecs", "callbacks", "training", "training.schedules")
# Packages of others whose subclasses of a base are offered.
_OFFERED: dict[type, str] = {
    Optimizer: "torch.optim",
    LRScheduler: "torch.optim.lr_scheduler",
    Callback: "lightning.pytorch.callbacks",
    Logger: "lightning.pytorch.loggers",
    Strategy: "lightning.pytorch.strategies",
    Profiler: "lightning.pytorch.profilers",
}
# They have subclasses that can be named, and cannot be used themselves.
_BASES = {nn.Module, VideoModule, SingleLossModule, VideoDataModule, Conditioner, *_OFFERED}
_SIMPLE: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, set, frozenset)
_MAPPINGS = (dict, collections.abc.Mapping)
_APPENDED = ("callbacks", "logger")  # lists that an overlay can add to, by a plus behind the key


def recipe_schema() -> Schema:
    """Builds the schema of a recipe, which is that of an overlay too: no key is required."""
    for entry in pkgutil.iter_modules(vgen.models.__path__):
        if entry.ispkg:
            importlib.import_module(f"vgen.models.{entry.name}")
    for name in _OWN:
        importlib.import_module(f"vgen.{name}")
    return _Builder().recipe()


def dump(schema: Schema) -> str:
    """The text of the schema's file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


class _Builder:
    """Collects the definitions of classes while it walks through type hints."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def recipe(self) -> Schema:
        stage: dict[str, Schema] = {
            "seed_everything": {"type": "integer", "description": "Seed of weights, noise and clip choice."},
            "trainer": self._trainer(),
            "model": self._choice(VideoModule),
            "data": self._choice(VideoDataModule),
            "init_from": {"anyOf": [self._value(WarmStart), {"type": "null"}]},
        }
        self.definitions["stage"] = _object(stage, "One stage: a complete LightningCLI configuration.")
        named = {"type": "object", "additionalProperties": _reference("stage")}
        top: dict[str, Schema] = {
            "$schema": {"type": "string"},
            "run_dir": {"type": ["string", "null"], "description": "Folder of the run; default runs/<recipe>."},
            "all_stages": {**_reference("stage"), "description": "Merged into every stage."},
            "stages": {**named, "description": "The stages by name, in training order."},
        }
        assert set(top) == set(TOP_LEVEL_KEYS)
        facts = {"$schema": _DRAFT, "title": "vgen recipe or overlay"}
        return {**facts, **_object(top), "definitions": dict(sorted(self.definitions.items()))}

    def _trainer(self) -> Schema:
        schema = self._arguments(Trainer)
        callback, logger = self._choice(Callback), self._choice(Logger)
        several = {
            "callbacks": _any_of([{"type": "array", "items": callback}, callback, {"type": "null"}]),
            "logger": _any_of([logger, {"type": "array", "items": logger}, {"type": ["boolean", "null"]}]),
        }
        schema["properties"] |= several | {f"{key}+": several[key] for key in _APPENDED}
        self.definitions["Trainer"] = schema
        return _reference("Trainer")

    # Classes --------------------------------------------------------------------------------------------------------

    def _choice(self, base: type) -> Schema:
        """A subclass of `base`: its name, or `class_path` with the `init_args` of that class."""
        name = f"one of {class_path(base)}"
        if name not in self.definitions:
            self.definitions[name] = {}  # a class may take another of its own kind
            classes = sorted(_offered(base), key=class_path)
            names: Schema = {"enum": [n for cls in classes for n in _names(cls)]}
            # A name of these packages that is not offered is a mistake.
            own = {"type": "string", "pattern": r"^\w+(\.\w+)+$", "not": {"pattern": r"^(vgen|torch|lightning)\."}}
            free = _object({"class_path": own, "init_args": {"type": "object"}}, "A class of your own.")
            known = [self._class(cls) for cls in classes]
            self.definitions[name] = {"anyOf": [names, *known, own, {**free, "required": ["class_path"]}]}
        return _reference(name)

    def _class(self, cls: type) -> Schema:
        key = class_path(cls)
        if key not in self.definitions:
            self.definitions[key] = {}
            self.definitions[key] = self._arguments(cls)
        # Without a class_path too: an overlay changes arguments of the class that the recipe names.
        return _object({"class_path": {"enum": _names(cls)}, "init_args": _reference(key)}, _summary(cls))

    def _arguments(self, cls: type) -> Schema:
        """Constructor arguments, without those that the program fills in."""
        # Texts of other packages stay theirs: their arguments have types only.
        texts = _argument_texts(cls) if cls.__module__.startswith("vgen") else {}
        hints = _hints(cls)
        properties: dict[str, Schema] = {}
        closed = True
        parameters = [p for p in inspect.signature(cls).parameters.values() if p.name not in ("self", "clip_spec")]
        if issubclass(cls, (Optimizer, LRScheduler)):
            parameters = parameters[1:]  # the parameters or the optimiser
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                closed = closed and parameter.kind is not parameter.VAR_KEYWORD
                continue
            schema = dict(self._value(hints.get(parameter.name, Any)))
            if text := texts.get(parameter.name):
                schema["description"] = text
            if (default := _plain(parameter.default)) is not parameter.empty:
                schema["default"] = default
            properties[parameter.name] = schema
        return _object(properties, closed=closed)

    # Type hints -----------------------------------------------------------------------------------------------------

    def _value(self, hint: Any) -> Schema:
        if hint in _SIMPLE:
            return {"type": _SIMPLE[hint]}
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return _any_of([self._value(one) for one in arguments])
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            places = [self._value(one) for one in arguments]
            return {"type": "array", "items": places, "minItems": len(places), "maxItems": len(places)}
        if origin in (*_SEQUENCES, tuple) or hint in (*_SEQUENCES, tuple):
            items = self._value(arguments[0]) if arguments else {}
            return {"type": "array", "items": items} if items else {"type": "array"}
        if origin in _MAPPINGS or hint in _MAPPINGS:
            values = self._value(arguments[1]) if len(arguments) == 2 else {}
            return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
        if origin is collections.abc.Callable and len(arguments) == 2:
            made = get_args(arguments[1]) or arguments[1:]
            return self._choice(made[0]) if made[0] in _OFFERED else {}  # optimisers and schedules
        return self._object_of(hint) if isinstance(hint, type) else {}

    def _object_of(self, cls: type) -> Schema:
        if issubclass(cls, PurePath):
            return {"type": "string"}
        # One of several kinds of an abstract thing (samplers) names its class; a group of settings does not.
        if dataclasses.is_dataclass(cls) and not isinstance(cls, ABCMeta):
            key = class_path(cls)
            if key not in self.definitions:
                self.definitions[key] = {**self._arguments(cls), "description": _summary(cls)}
            return _reference(key)
        known = str(cls.__module__).partition(".")[0] in ("vgen", "torch", "lightning")
        return self._choice(cls) if known and _offered(cls) else {}


def _object(properties: Mapping[str, Schema], description: str = "", closed: bool = True) -> Schema:
    schema: Schema = {"type": "object", "description": description} if description else {"type": "object"}
    schema["properties"] = dict(properties)
    return {**schema, "additionalProperties": False} if closed else schema


def _reference(name: str) -> Schema:
    # Draft 7 ignores what stands beside a reference; in a list of one it can have a description and a default.
    return {"allOf": [{"$ref": "#/definitions/" + name.replace("/", "~1")}]}


def _any_of(schemas: list[Schema]) -> Schema:
    """One of several; plain types are put together."""
    if {} in schemas:
        return {}
    kinds: list[str] = []
    rest: list[Schema] = []
    for schema in schemas:
        if schema.keys() == {"type"}:
            named = schema["type"]
            kinds += [kind for kind in ([named] if isinstance(named, str) else named) if kind not in kinds]
        elif schema not in rest:
            rest.append(schema)
    if kinds:
        rest.append({"type": kinds[0] if len(kinds) == 1 else kinds})
    return rest[0] if len(rest) == 1 else {"anyOf": rest}


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(base)
    for cls in children:
        yield cls
        yield from _subclasses(cls)


def _offered(base: type) -> list[type]:
    """The subclasses of `base` (and itself) that a recipe can name."""
    found: list[type] = []
    candidates: set[type] = {base, *_subclasses(base)}
    for cls in candidates - _BASES:
        path, name = class_path(cls), cls.__name__
        package = path.rpartition(".")[0]
        offered = package == _OFFERED.get(base)
        ours = package.startswith("vgen.models.") or package.removeprefix("vgen.") in (*_OWN, "data.datamodules")
        if not (offered or ours) or inspect.isabstract(cls) or name.startswith("_"):
            continue
        exported = getattr(importlib.import_module(package), "__all__", None)
        # Of the countless modules, those that their package exports.
        if name in exported if exported is not None else offered or base is not nn.Module:
            found.append(cls)
    return found


def _names(cls: type) -> list[str]:
    """How a recipe can name a class: by its path, or alone."""
    return [class_path(cls), cls.__name__]


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    except (NameError, TypeError):  # other packages import some types for type checkers only
        return {}


def _plain(value: Any) -> Any:
    """The value if it can stand in JSON, else the marker of no default."""
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return inspect.Parameter.empty if inspect.Parameter.empty in items else items
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return inspect.Parameter.empty


def _summary(cls: type) -> str:
    """The first sentence of a class of ours."""
    if not cls.__module__.startswith("vgen"):
        return ""
    return docstring_parser.parse(inspect.getdoc(cls) or "").short_description or ""


def _argument_texts(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its arguments."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("vgen") and base.__doc__:
            for entry in docstring_parser.parse(inspect.cleandoc(base.__doc__)).params:
                texts[entry.arg_name] = " ".join((entry.description or "").split())
    return texts
