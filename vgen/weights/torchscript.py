"""The tensors of a TorchScript file, without running its code.

`torch.jit.load` compiles and later runs what the file says. The parameters beside that code are an ordinary pickle in
the archive, and are read here by an unpickler that builds tensors and plain containers alone: every other name in it,
the classes of the script among them, becomes a record of what was said.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.weights.unpickle import Foreign

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DEEPEST = 50  # modules inside modules; a deeper nesting is no network


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Reads parameters, buffers and tensor attributes of a TorchScript file by their dotted names, in file order.

    Raises:
        UserError: No TorchScript file, a damaged one, or one whose parameters are not plain tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            with archive.open(name) as file:
                module = _TensorsOnly(file, archive, name.removesuffix(".pkl")).load()
        return dict(_tensors(module, "", 0))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        StopIteration,
        KeyError,
        ValueError,
        TypeError,
        EOFError,
        RuntimeError,
        IndexError,
        AttributeError,
    ) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"no TorchScript file, or a damaged one ({what})", where=str(path)) from error


class _TensorsOnly(pickle.Unpickler):
    """Imports nothing: names stand for tensors, plain containers, or records."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder
        self.read: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports."""
        full = f"{module}.{name}"
        if full == "torch._utils._rebuild_tensor_v2":
            return _rebuild
        if full == "collections.OrderedDict":
            return OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        return type("Foreign", (Foreign,), {"name": full})

    def persistent_load(self, pid: Any) -> Tensor:
        """The bytes of a storage as a flat tensor."""
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        if key not in self.read:
            content = bytearray(self.archive.read(f"{self.folder}/{key}"))
            self.read[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.read[key][:count]


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset).clone()


def _tensors(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _DEEPEST:
        raise ValueError("modules are nested without end")
    if isinstance(value, Tensor):
        yield prefix, value
    state = value.state if isinstance(value, Foreign) else value
    if isinstance(state, dict):
        for name, item in state.items():
            yield from _tensors(item, f"{prefix}.{name}" if prefix else str(name), depth + 1)
