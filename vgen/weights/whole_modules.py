"""Reading files that `torch.save` made of a whole module, without importing the module's class.

Early projects saved objects, not state dicts. Such a file names classes that only exist in that project, and PyTorch's
restricted loader refuses it. Here every class is replaced by a record of what the file says (see
`vgen.weights.persistence`), and the tensors are collected by the names of modules, parameters and buffers.
"""

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.weights.persistence import RecordUnpickler, network_state
from vgen.weights.torchscript import STORAGES

_MAGIC = 0x1950A86A20F9469CFC6C  # of the form before PyTorch 1.6
_VERSION = 1001


class _Unpickler(RecordUnpickler):
    """Keeps a flat tensor for each storage: read at once from an archive, filled later in the older form."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile | None, folder: str, most: int) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote names as bytes
        self.archive, self.folder, self.most = archive, folder, most
        self.read: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Storages are known by their number type; tensors are views on them."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _view
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """A storage, or a class together with its source, which is not looked at."""
        kind, *facts = pid
        if kind == "module":
            return facts[0]
        dtype, key, _device, count, *views = facts
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(views):
            raise pickle.UnpicklingError(f"unknown storage {str(pid)[:80]}")
        key, count = str(key), int(count)
        if key not in self.read:
            if count * dtype.itemsize > self.most:
                raise pickle.UnpicklingError("a storage is larger than the file")
            self.read[key] = torch.zeros(count, dtype=dtype)
            if self.archive is not None:
                _fill(self.read[key], self.archive.read(f"{self.folder}/data/{key}"))
        return self.read[key]


def read_module(path: str | Path) -> dict[str, Tensor]:
    """The state dict of the module in a file.

    Raises:
        UserError: The file is missing, damaged, or holds no module.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such checkpoint file", str(path))
    try:
        found = _from_archive(path) if zipfile.is_zipfile(path) else _from_stream(path)
        state = network_state(found)[1]
    except UserError as error:
        raise UserError(f"the file holds no module: {error.what}", str(path)) from error
    except Exception as error:  # the unpickler raises half a dozen types on damaged or foreign files
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"not a module that torch.save wrote, or a damaged file: {line}", str(path)) from error
    if not state:
        raise UserError("there are no weights in the file", str(path))
    return {name: value.clone() for name, value in state.items()}


def _from_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            return _Unpickler(file, archive, name.removesuffix("/data.pkl"), path.stat().st_size).load()


def _from_stream(path: Path) -> Any:
    """The older form: magic number, version, facts of the system, the object, keys of storages, their contents."""
    with path.open("rb") as file:
        facts = [RecordUnpickler(file, encoding="latin1").load() for _ in range(3)]
        if facts[:2] != [_MAGIC, _VERSION]:
            raise pickle.UnpicklingError("it begins with another number")
        reader = _Unpickler(file, None, "", path.stat().st_size)
        found = reader.load()
        for key in RecordUnpickler(file, encoding="latin1").load():
            count = int.from_bytes(file.read(8), "little")
            storage = reader.read[str(key)]
            if count != len(storage):
                raise pickle.UnpicklingError(f"storage {key} has {count} numbers, not {len(storage)}")
            _fill(storage, file.read(storage.nbytes))
    return found


def _view(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor on a storage, whose content may still be to come; torch checks that it lies within."""
    return torch.as_strided(storage, size, stride, offset)


def _fill(storage: Tensor, content: bytes) -> None:
    if len(content) != storage.nbytes:
        raise pickle.UnpicklingError("a storage is cut short")
    if content:
        storage.copy_(torch.frombuffer(bytearray(content), dtype=storage.dtype))
