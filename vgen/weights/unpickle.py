"""Reading the checkpoint files of other projects without running anything that is in them.

A torch file is a pickle, and a pickle is a program. Official checkpoints are read through torch's restricted
unpickler (`weights_only=True`), which knows tensors and plain containers and stops at everything else. Classes that
official files are known to hold besides tensors are never imported either: a record of what the file said takes
their place. What else unpickles in vgen, `vgen.weights.torch_pickles` and `persistence`, imports nothing either.
"""

import json
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.weights.torch_pickles import StandIn, read_stream, refused

_HEAD_BYTES = 512


def _data(data: Tensor, *_: Any) -> Tensor:
    return data


_PLAIN: dict[str, Callable[..., Any]] = {
    "__builtin__.set": set,
    "builtins.set": set,
    "collections.OrderedDict": OrderedDict,
    "torch.Size": tuple,
    "torch._utils._rebuild_parameter": _data,
    "torch.nn.parameter.Parameter": _data,
    "torch.autograd.variable.Variable": _data,
}


class Foreign:
    """What a file says about an object of a class that is not opened.

    Args:
        arguments: What the class or function was called with.

    Attributes:
        name: Full name of the class or function in the file.
        arguments: What it was called with.
        state: What was then put into it; None if nothing was.
    """

    name = ""

    def __new__(cls, *arguments: Any) -> "Foreign":
        """Takes the arguments here, because unpickling may make an object without initialising it."""
        self = super().__new__(cls)
        self.arguments = arguments
        self.state = None
        return self

    def __init__(self, *arguments: Any) -> None:
        self.arguments: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        """Keeps the state as it is in the file."""
        self.state = state


# numpy's own constructors are not used: they accept dtypes of Python objects.
NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "_codecs.encode",
)
"""Names of the pieces that numpy numbers and arrays of numbers are pickled with."""


def read_official(path: str | Path, allow: Sequence[str] = (), modules: bool = False) -> dict[str, Any]:
    """Reads an official checkpoint: a torch file (zip or legacy form) or a safetensors file.

    Args:
        path: The file.
        allow: Full names of further classes or functions that the file may mention (`argparse.Namespace`). They are
            not imported or called; each becomes a dict `{"class": name, "arguments": [...], "state": ...}`. Numbers
            and numeric arrays of numpy are always read (as Python numbers and tensors).
        modules: The file may hold whole modules, of allowed classes. Torch's own reader refuses those of its first
            format.

    Returns:
        What the file holds: tensors on the CPU in plain containers.

    Raises:
        UserError: The file is missing, damaged, of another kind, or holds more than tensors and plain containers.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    stand_ins: list[Any] = [(type("Foreign", (Foreign,), {"name": name}), name) for name in (*NUMPY, *allow)]
    # Other libraries add classes of their own to the process-wide list; they are not wanted here.
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            # Protocols newer than 2 either read well or end in an error below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            if modules and kind == "legacy":
                content = read_stream(path, _allowed({name: stand_in for stand_in, name in stand_ins}))
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
        content = _plain(content, str(path))
    except UserError:
        raise
    except Exception as error:
        # torch raises UnpicklingError, RuntimeError, EOFError, struct.error, KeyError, ... on what it cannot read
        raise _explain(path, kind, error, {name for _, name in stand_ins}) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)
    if not isinstance(content, dict):
        raise UserError(
            f"the file holds a {type(content).__name__}, not a dict of weights",
            where=str(path),
            hint="a checkpoint is a dict of tensors, or a dict of such dicts",
        )
    return content


def _allowed(stand_ins: Mapping[str, Any]) -> StandIn:
    """Plain containers, parameters as their tensors, and what the caller allows."""
    known = {**_PLAIN, **stand_ins}

    def stand_in(module: str, name: str) -> Any:
        full = f"{module}.{name}"
        return known[full] if full in known else refused(module, name)

    return stand_in


def _kind(path: Path) -> str:
    if path.is_dir():
        raise UserError("this is a folder, not a checkpoint file", where=str(path))
    if not path.exists():
        raise UserError("no such checkpoint file", where=str(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if size == 0:
        raise UserError("the checkpoint file is empty", where=str(path), hint="fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(
            "this is a git-LFS pointer, not the checkpoint itself", where=str(path), hint="run `git lfs pull` there"
        )
    if head.lstrip()[:1] == b"<":
        raise UserError(
            "this is a web page, not a checkpoint",
            where=str(path),
            hint="the download link showed a page; open it in a browser and save the file",
        )
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000:
        return "safetensors"
    if head[:1] != b"\x80":
        raise UserError(
            "this is neither a torch file nor a safetensors file",
            where=str(path),
            hint=f"it begins with {head[:8]!r}",
        )
    return "legacy"


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise UserError(
            f"the safetensors file cannot be read: {error}", where=str(path), hint="fetch it again"
        ) from error


def _explain(path: Path, kind: str, error: Exception, allowed: set[str]) -> UserError:
    """Says in one line why torch could not read a file, naming what is not plain data in it."""
    named = re.search(r"(?:Unsupported global: |unsupported )GLOBAL (\S+)", str(error))
    foreign = sorted(name for name in _globals(path, kind) if name not in allowed and not _is_plain(name))
    if named or (foreign and isinstance(error, pickle.UnpicklingError)):
        first = foreign[0] if foreign else str(named.group(1)) if named else ""
        others = f" (and {len(foreign) - 1} more: {', '.join(foreign[1:6])})" if len(foreign) > 1 else ""
        return UserError(
            f"refused: the file holds more than tensors and plain containers, it names {first}{others}",
            where=str(path),
            hint="nothing in it was run; take a file of weights alone, or, for a class that only carries settings, "
            f"pass allow=[{first!r}]",
        )
    size = f"{path.stat().st_size:,} bytes"
    line = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
    return UserError(
        f"the checkpoint file is damaged or cut short ({size}): {line}",
        where=str(path),
        hint="compare its size with the source and fetch it again",
    )


def _is_plain(name: str) -> bool:
    return name == "collections.OrderedDict" or (
        name.startswith("torch.") and not name.startswith(("torch.nn.modules", "torch.jit", "torch.hub"))
    )


def _globals(path: Path, kind: str) -> set[str]:
    """Names every class and function that the pickles of a file mention, from their opcodes alone."""
    found: set[str] = set()
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        with archive.open(name) as file:
                            found.update(_names(pickletools.genops(file.read())))
        else:
            with path.open("rb") as file:
                # Legacy files hold a magic number, a version, system facts, the object and the storage keys.
                for _ in range(5):
                    found.update(_names(pickletools.genops(file)))
    except Exception:  # the message is made from what could be read of a damaged file
        return found
    return found


def _names(operations: Iterator[tuple[Any, Any, Any]]) -> Iterator[str]:
    texts: list[str] = []
    for opcode, argument, _ in operations:
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)


def _plain(value: Any, where: str) -> Any:
    """Copies containers, turns numpy pieces into numbers and tensors, and records into dicts."""
    if isinstance(value, Foreign):
        if value.name in NUMPY:
            return _numpy_value(value, where)
        arguments = [_plain(item, where) for item in value.arguments]
        return {"class": value.name, "arguments": arguments, "state": _plain(value.state, where)}
    if isinstance(value, type) and issubclass(value, Foreign):
        return value.name  # a class that is named and not used, as Lightning's keys of callbacks
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {_key(key, where): _plain(item, where) for key, item in value.items()}
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, list | tuple | set):
        return type(value)(_plain(item, where) for item in value)
    plain = bool | int | float | complex | str | bytes | torch.dtype | torch.device | torch.layout
    if value is None or isinstance(value, plain):
        return value
    raise UserError(f"refused: the file holds an object of {type(value)!r}, which is not plain data", where=where)


def _key(key: Any, where: str) -> Any:
    plain = _plain(key, where)
    return plain if not isinstance(plain, dict | list | set) else str(plain)


def _numpy_value(value: Foreign, where: str) -> Any:
    """Rebuilds a numpy number, array of numbers, dtype or bytes from its pickled pieces."""
    try:
        if value.name == "_codecs.encode":
            text, encoding = value.arguments
            if encoding not in ("latin1", "latin-1"):
                raise ValueError(f"encoding {encoding!r}")
            return text.encode("latin1")
        if value.name == "numpy.dtype":
            return str(_dtype(value))
        if value.name.endswith("scalar"):
            dtype, data = value.arguments
            return np.frombuffer(_bytes(data), dtype=_dtype(dtype))[0].item()
        if value.name.endswith("_reconstruct"):
            _version, shape, dtype, fortran, data = value.state
            array = np.frombuffer(_bytes(data), dtype=_dtype(dtype))
            array = array.reshape(shape, order="F" if fortran else "C")
            return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
        return value.name  # the class numpy.ndarray itself, as an argument of _reconstruct
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"refused: a numpy value that is not numeric ({error})", where=where) from error


def _dtype(value: Any) -> np.dtype[Any]:
    code = str(value.arguments[0])
    if not re.fullmatch(r"[biufc]\d{1,2}", code):
        raise ValueError(f"dtype {code!r}")
    order: Any = value.state[1] if value.state else "="
    return np.dtype(code).newbyteorder("<" if order == "|" else order)


def _bytes(data: Any) -> bytes:
    if isinstance(data, Foreign):
        return bytes(_numpy_value(data, ""))
    # Python 2 wrote bytes as text.
    return data.encode("latin1") if isinstance(data, str) else bytes(data)
