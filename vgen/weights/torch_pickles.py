"""Reading objects that torch has pickled, without importing a class.

`torch.save` writes a pickle that refers to storages, the numbers of tensors, beside it: in a zip archive, or, in its
first format, in a stream of five pickles and then the numbers. TorchScript writes such an archive, too. The readers
make the tensors; what stands for any other class or function that a pickle names is up to the caller.
"""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

#: (module, name) of a class or function in a file -> what takes its place; raises where nothing may.
StandIn = Callable[[str, str], Any]
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
_REBUILDING = ("_rebuild_tensor", "_rebuild_tensor_v2")
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


class _Reader(pickle.Unpickler):
    """Keeps a flat tensor for each storage.

    Args:
        file: The pickle.
        stand_in: See `StandIn`.
        most: Bytes of the whole file, which no storage is larger than.
        content: The bytes of a storage; None: they come later.
    """

    def __init__(
        self, file: IO[bytes], stand_in: StandIn, most: int, content: Callable[[str], bytes] | None = None
    ) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote names as bytes
        self.stand_in, self.most, self.content = stand_in, most, content
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Storages are known by their number type; tensors are views on them."""
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        return _view if module == "torch._utils" and name in _REBUILDING else self.stand_in(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """A storage, or a class together with its source, which is not looked at."""
        kind, *facts = pid
        if kind == "module":
            return facts[0]
        dtype, key, _device, count, *views = facts
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view is not None for view in views):
            raise pickle.UnpicklingError(f"unknown storage {str(pid)[:80]}")
        key, count = str(key), int(count)
        if key not in self.storages:
            if count * dtype.itemsize > self.most:
                raise pickle.UnpicklingError("a storage is larger than the file")
            self.storages[key] = torch.zeros(count, dtype=dtype)
            if self.content is not None:
                _fill(self.storages[key], self.content(key))
        return self.storages[key]


def read_archive(path: Path, stand_in: StandIn) -> Any:
    """What a zip archive of `torch.save` or TorchScript holds, tensors on the CPU; several may share their numbers.

    Args:
        path: The file.
        stand_in: See `StandIn`.

    Raises:
        Exception: Of half a dozen types, where the file is damaged, no such file, or names what may not be named.
    """
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = name.removesuffix(".pkl")
        with archive.open(name) as file:
            return _Reader(file, stand_in, path.stat().st_size, lambda key: archive.read(f"{folder}/{key}")).load()


def read_stream(path: Path, stand_in: StandIn) -> Any:
    """The same of torch's first format: magic number, version, facts of the system, the object, keys of storages.

    Their contents stand behind that.
    """
    most = path.stat().st_size
    with path.open("rb") as file:
        facts = [_Reader(file, refused, most).load() for _ in ("magic", "version", "system")]
        if facts[:2] != [_MAGIC, _VERSION]:
            raise pickle.UnpicklingError("not a file of torch's first format")
        reader = _Reader(file, stand_in, most)
        found = reader.load()
        for key in _Reader(file, refused, most).load():
            storage = reader.storages[str(key)]
            if (count := int.from_bytes(file.read(8), "little")) != len(storage):
                raise pickle.UnpicklingError(f"storage {key} has {count} numbers, not {len(storage)}")
            _fill(storage, file.read(storage.nbytes))
    return found


def refused(module: str, name: str) -> Any:
    """The stand-in where nothing is allowed."""
    raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}")


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor on a storage, whose content may still be to come; torch checks that it lies within."""
    return torch.as_strided(storage, size, stride, offset)


def _fill(storage: Tensor, content: bytes) -> None:
    if len(content) != storage.nbytes:
        raise EOFError(f"{len(content)} of {storage.nbytes} bytes of a tensor")
    if content:
        storage.copy_(torch.frombuffer(bytearray(content), dtype=storage.dtype))
