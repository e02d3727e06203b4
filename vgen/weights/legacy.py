"""Files of whole modules in torch's first format, which its own reader of weights refuses.

Such a file holds, one behind the other, five pickles and the numbers of the tensors. Classes are not imported: where a
pickle names one that the caller allows, a stand-in takes its place; any other name ends the reading.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


class _Storages:
    """The numbers of tensors: made empty while the pickle is read, filled from what stands behind it."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[torch.UntypedStorage, torch.dtype, int]] = {}

    def make(self, dtype: torch.dtype, key: str, count: int, view: Any) -> tuple[torch.UntypedStorage, torch.dtype]:
        if view is not None:
            raise pickle.UnpicklingError("a storage that is a part of another")
        if key not in self.found:
            self.found[key] = (torch.UntypedStorage(count * dtype.itemsize), dtype, count)
        return self.found[key][0], dtype

    def fill(self, file: IO[bytes], keys: list[str]) -> None:
        for key in keys:
            storage, dtype, wanted = self.found[key]
            (count,) = struct.unpack("<q", file.read(8))
            size = count * dtype.itemsize
            content = file.read(size)
            if count != wanted or len(content) != size or storage.nbytes() != size:
                raise EOFError(f"{len(content)} of {wanted * dtype.itemsize} bytes of a tensor")
            if size:
                storage.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8).untyped_storage())


def _tensor(place: tuple[torch.UntypedStorage, torch.dtype], offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    storage, dtype = place
    if offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= max(
        storage.nbytes() // dtype.itemsize, 1
    ):
        raise pickle.UnpicklingError("a tensor beyond its storage")
    return torch.empty(0, dtype=dtype).set_(storage, offset, tuple(size), tuple(stride))


def _data(data: Tensor, *_: Any) -> Tensor:
    return data


_KNOWN: dict[str, Callable[..., Any]] = {
    "__builtin__.set": set,
    "builtins.set": set,
    "collections.OrderedDict": OrderedDict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _data,
    "torch.nn.parameter.Parameter": _data,
    "torch.autograd.variable.Variable": _data,
}


class _Reader(pickle.Unpickler):
    """Knows tensors, their storages, and what is allowed."""

    def __init__(self, file: IO[bytes], stand_ins: Mapping[str, type], storages: _Storages) -> None:
        super().__init__(file, encoding="latin1")
        self.stand_ins, self.storages = stand_ins, storages

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        kind = name.removesuffix("Storage")
        if module in ("torch", "torch.cuda") and name.endswith("Storage") and kind in _DTYPES:
            return _DTYPES[kind]
        if full in _KNOWN:
            return _KNOWN[full]
        if full in self.stand_ins:
            return self.stand_ins[full]
        raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {full}")

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a class, and its source, which nobody reads
            return pid[1]
        if pid[0] == "storage":
            _, dtype, key, _, count, *view = pid
            return self.storages.make(dtype, key, count, view[0] if view else None)
        raise pickle.UnpicklingError(f"a reference of kind {pid[0]!r}")


def read_legacy(path: Path, stand_ins: Mapping[str, type]) -> Any:
    """What a file of torch's first format holds, tensors on the CPU.

    Args:
        path: The file.
        stand_ins: What takes the place of a class, by its full name.

    Raises:
        UnpicklingError: The file names something else, or is no such file.
        EOFError: It is cut short.
    """
    storages = _Storages()
    with path.open("rb") as file:
        if _Reader(file, {}, storages).load() != _MAGIC:
            raise pickle.UnpicklingError("not a file of torch's first format")
        for _ in ("version", "system"):
            _Reader(file, {}, storages).load()
        content = _Reader(file, stand_ins, storages).load()
        storages.fill(file, _Reader(file, {}, storages).load())
    return content
