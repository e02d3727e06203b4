"""Reading files that `torch.save` made of a whole module, without importing the module's class.

Early projects saved objects, not state dicts. Such a file names classes that only exist in that project, and PyTorch's
restricted loader refuses it. Here every class is replaced by a record of what the file says (see
`vgen.weights.persistence`), and the tensors are collected by the names of modules, parameters and buffers.
"""

import zipfile
from pathlib import Path

from torch import Tensor

from vgen.errors import UserError
from vgen.weights.persistence import network_state, stand_in
from vgen.weights.torch_pickles import read_archive, read_stream


def read_module(path: str | Path) -> dict[str, Tensor]:
    """The state dict of the module in a file.

    Raises:
        UserError: The file is missing, damaged, or holds no module.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such checkpoint file", str(path))
    try:
        found = (read_archive if zipfile.is_zipfile(path) else read_stream)(path, stand_in)
        state = network_state(found)[1]
    except UserError as error:
        raise UserError(f"the file holds no module: {error.what}", str(path)) from error
    except Exception as error:  # the unpickler raises half a dozen types on damaged or foreign files
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"not a module that torch.save wrote, or a damaged file: {line}", str(path)) from error
    if not state:
        raise UserError("there are no weights in the file", str(path))
    return {name: value.clone() for name, value in state.items()}
