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

from torch import Tensor

from vgen.errors import UserError
from vgen.weights.torch_pickles import read_archive
from vgen.weights.unpickle import Foreign

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
        found = _tensors(read_archive(Path(path), _stand_in), "", 0)
        return {name: value.clone() for name, value in found}
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


def _stand_in(module: str, name: str) -> Any:
    """Plain containers, or records."""
    full = f"{module}.{name}"
    return OrderedDict if full == "collections.OrderedDict" else type("Foreign", (Foreign,), {"name": full})


def _tensors(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _DEEPEST:
        raise ValueError("modules are nested without end")
    if isinstance(value, Tensor):
        yield prefix, value
    state = value.state if isinstance(value, Foreign) else value
    if isinstance(state, dict):
        for name, item in state.items():
            yield from _tensors(item, f"{prefix}.{name}" if prefix else str(name), depth + 1)
