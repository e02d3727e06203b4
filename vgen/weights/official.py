"""What the converters of official files have in common: what may go wrong in them, and what is said of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.files import sha256

# what reading a network's sizes from the names and shapes of another network's weights may raise
_FAULTS = (KeyError, IndexError, AttributeError, TypeError, ValueError, StopIteration)


@contextmanager
def expecting(kind: str, path: Path) -> Iterator[None]:
    """Around reading names and shapes: says what the weights of the file should have been.

    Raises:
        UserError: They were of another kind.
    """
    try:
        yield
    except _FAULTS as error:
        missing = f": {error} is missing" if isinstance(error, KeyError) else f": {error}"
        raise UserError(f"the weights are not those of {kind}{missing}"[:200], str(path)) from error


def check_schedule(stored: object, rebuilt: Tensor, usual: str, path: Path) -> None:
    """The file's own noise schedule must be the one that is rebuilt for it.

    Args:
        stored: The file's cumulative products of alpha (T,); what is no tensor is not compared.
        rebuilt: Ours (T,).
        usual: Whose schedule that is.
        path: The file.

    Raises:
        UserError: They differ.
    """
    if isinstance(stored, Tensor) and (
        stored.shape != rebuilt.shape or not torch.allclose(stored.float(), rebuilt.float(), rtol=1e-4, atol=1e-6)
    ):
        raise UserError(f"the file has another noise schedule than {usual}", str(path))


def source_facts(path: Path, content: Mapping[str, Any] | None = None, *counters: str) -> dict[str, Any]:
    """Where the weights came from, for the model card: name and hash of the file, and its counters.

    Args:
        path: The file.
        content: What it holds.
        counters: Names in it, such as `epoch`; those that are not there, or no whole numbers, are left out.
    """
    found = {name: value for name in counters if isinstance(value := (content or {}).get(name), int)}
    return {"file": path.name, "sha256": sha256(path), **found}


def counted(name: str, network: nn.Module, tensors: int, released: Mapping[int, str] | None = None) -> str:
    """A line for people: the size of a network whose weights have all been found.

    Args:
        name: What the network is.
        network: The network.
        tensors: How many tensors of the file it took.
        released: Parameters of released networks -> which one that is.
    """
    count = sum(p.numel() for p in network.parameters())
    known = f" (as the released {released[count]})" if released and count in released else ""
    return f"{name}: {count:,} parameters{known}; all {tensors} tensors found their place"
