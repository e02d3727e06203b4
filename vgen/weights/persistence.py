"""Reading the network pickles of NVIDIA's research code (`network-snapshot-*.pkl`) without running what is in them.

Such a file holds whole objects together with the source code of their classes, which their own loader executes. Here
every class is replaced by a record of what the file says about it, and the tensors are collected from those records by
the names of modules, parameters and buffers.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgen.errors import UserError

#: Functions of torch that rebuild a tensor from numbers and nothing else.
_TENSORS = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("collections", "OrderedDict"): dict,
}


class Record(dict[Any, Any]):
    """An object of the file: its class, what it was made with, its state and, of a mapping, its items."""

    name = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keeps the state as it is in the file."""
        self.state = state

    def append(self, value: Any) -> None:
        """Takes the items of a list that is no plain list."""
        self[len(self)] = value


def _storage(content: bytes) -> Any:
    """A storage that was pickled as a torch file of its own: read with the restricted unpickler."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def stand_in(module: str, name: str) -> Any:
    """What takes the place of a class or function of a file: what rebuilds tensors, else a kind of `Record`."""
    if (module, name) in _TENSORS:
        return _TENSORS[module, name]
    if (module, name) == ("torch.storage", "_load_from_bytes"):
        return _storage
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)

    def make(cls: type[Record], *arguments: Any) -> Record:
        record = dict.__new__(cls)
        record.arguments = arguments
        return record

    def initialise(self: Record, *arguments: Any) -> None:
        """Nothing is done with what the class would be made of; it is in `arguments`."""

    return type("Record", (Record,), {"name": f"{module}.{name}", "__new__": make, "__init__": initialise})


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return stand_in(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside of the file")


def read_network_pickle(path: str | Path) -> Any:
    """Reads such a file; every object but numbers, text, plain containers and tensors is a `Record`.

    Raises:
        UserError: The file is missing, damaged, or no such pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such file", str(path))
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except Exception as error:  # the unpickler raises half a dozen types on damaged or foreign files
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"not a network pickle, or a damaged one: {line}", str(path), "fetch it again") from error


def network_state(record: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Attributes and state dict of a network among the records.

    Args:
        record: What stands for a module in the file.

    Returns:
        Its plain attributes, and its tensors by their full names.
    """
    attributes = _attributes(record)
    tensors = {
        name: value
        for part in ("_parameters", "_buffers")
        for name, value in ((name, _tensor(value)) for name, value in attributes.get(part, {}).items())
        if value is not None
    }
    for child, module in attributes.get("_modules", {}).items():
        if module is not None:
            tensors |= {f"{child}.{name}": value for name, value in network_state(module)[1].items()}
    return {name: value for name, value in attributes.items() if not name.startswith("_")}, tensors


def _tensor(value: Any) -> Tensor | None:
    """A tensor, also where PyTorch before 0.4 wrote it as a parameter that was made with it."""
    if isinstance(value, Record) and value.name == "torch.nn.parameter.Parameter" and value.arguments:
        value = value.arguments[0]
    return value if isinstance(value, Tensor) else None


def _attributes(record: Any) -> dict[str, Any]:
    """What is in `__dict__` of the object: its state, or the state in the notes of a persistent class."""
    if not isinstance(record, Record):
        raise UserError(f"expected a network, the file has a {type(record).__name__} there")
    if record.name.endswith("_reconstruct_persistent_obj"):
        notes = record.arguments[0] if record.arguments else {}
        state = notes.get("state") if isinstance(notes, dict) else None
    else:
        state = record.state
    if not isinstance(state, dict):
        raise UserError(f"the file says nothing about what is in its {record.name}")
    return state
