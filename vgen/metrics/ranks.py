"""The few things that evaluation asks of a process group; alone, a process is rank 0 of 1."""

from typing import Any, TypeVar

from torch import distributed

from vgen.errors import UserError

T = TypeVar("T")


def _group() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank_and_size() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if _group() else (0, 1)


def from_first(value: T | None) -> T | None:
    """What rank 0 has; every rank has to ask."""
    if not _group():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def raise_together(error: Exception | None) -> None:
    """Raises on every rank where one of them failed, so that none waits for the others for ever."""
    if not _group():
        if error is not None:
            raise error
        return
    every: list[Any] = [None] * distributed.get_world_size()
    text = None if error is None else f"{type(error).__name__}: {error}"
    distributed.all_gather_object(every, text)
    if error is not None:
        raise error
    failed = [(rank, text) for rank, text in enumerate(every) if text is not None]
    if failed:
        raise UserError(f"rank {failed[0][0]} failed: {failed[0][1]}")
