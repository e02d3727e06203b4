"""Objects that remember how they were built, as plain data, so that a checkpoint can describe itself.

A description is what a recipe holds: plain values, and `{"class_path": ..., "init_args": {...}}` for objects. It is the
same for an object that the command line built and for one built in Python.
"""

import functools
import inspect
import sys
from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from vgen.errors import UserError

_PLAIN = (type(None), bool, int, float, str)


def class_path(cls: type) -> str:
    """Dotted import path of a class; the public package is preferred over the file where it re-exports the class."""
    package = cls.__module__
    while "." in package:
        parent = package.rpartition(".")[0]
        module = sys.modules.get(parent)
        if module is None or getattr(module, cls.__name__, None) is not cls:
            break
        package = parent
    return f"{package}.{cls.__qualname__}"


class _Unrecorded:
    """Stands for an argument that cannot be written as plain data; using it is an error that names the argument."""

    def __init__(self, value: Any) -> None:
        self.type_name = f"{type(value).__module__}.{type(value).__qualname__}"


def describe(value: Any) -> Any:
    """Describes a constructor argument as plain data (see the module docstring).

    Classes and partials (optimisers, schedulers) become `{"class_path", "init_args"}`, and so do dataclasses with an
    abstract base; other dataclasses become dicts. What cannot be described becomes a marker that `require_described`
    refuses.
    """
    if isinstance(value, Enum):
        return describe(value.value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        arguments = {field.name: describe(getattr(value, field.name)) for field in fields(value) if field.init}
        # One of several kinds of an abstract thing (samplers) has to name its class; a group of settings has not.
        chosen = isinstance(type(value), ABCMeta)
        return {"class_path": class_path(type(value)), "init_args": arguments} if chosen else arguments
    if isinstance(value, type):
        return {"class_path": class_path(value)}
    if isinstance(value, functools.partial):
        # jsonargparse hands callables over as partial(instantiator, <class>, **init_args).
        cls = next((a for a in (value.func, *value.args) if isinstance(a, type)), None)
        if cls is not None:
            return {"class_path": class_path(cls), "init_args": describe(value.keywords)}
    recorded = getattr(value, "configuration", None)
    if isinstance(recorded, Mapping):
        return {"class_path": class_path(type(value)), "init_args": dict(recorded)}
    return _Unrecorded(value)


def require_described(description: Any, where: str) -> Any:
    """Returns the description, or raises UserError naming the first argument in it that is not plain data."""
    if isinstance(description, _Unrecorded):
        raise UserError(
            f"a {description.type_name} does not record its constructor arguments, so no checkpoint could describe it",
            where=where,
            hint="derive its class from vgen.configurable.Configurable, or build the model from a recipe",
        )
    if isinstance(description, Mapping):
        for key, item in description.items():
            require_described(item, f"{where}.{key}")
    elif isinstance(description, list):
        for index, item in enumerate(description):
            require_described(item, f"{where}[{index}]")
    return description


class Configurable:
    """Mixin that records the constructor arguments of the object in `self.configuration`.

    The arguments are described at construction time (see `describe`), with the defaults filled in, by the constructor
    of the most derived class.
    """

    configuration: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def recording(self: Any, *args: Any, **kwargs: Any) -> None:
            if "configuration" not in self.__dict__:
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                given = dict(list(bound.arguments.items())[1:])
                for name, parameter in signature.parameters.items():
                    if parameter.kind is parameter.VAR_KEYWORD:  # a subclass in somebody's script that passes on
                        given |= given.pop(name)
                # Not through setattr: torch modules have no attribute storage before their own constructor ran.
                self.__dict__["configuration"] = {key: describe(value) for key, value in given.items()}
            original(self, *args, **kwargs)

        cls.__init__ = recording  # type: ignore[method-assign]
