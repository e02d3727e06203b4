"""Tensors that are spread over ranks (FSDP2): whole ones for files, and shards from what a file holds."""

from typing import Any

import torch
from torch import Tensor


def is_sharded(value: Any) -> bool:
    """Whether a tensor is one rank's share of a larger one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local(value: Tensor) -> Tensor:
    """This rank's share of a tensor, which shares its memory; the tensor itself where it is whole."""
    return value.to_local() if is_sharded(value) else value  # type: ignore[attr-defined]


def gather(value: Any) -> Any:
    """Makes all tensors in nested dicts and lists whole, on the CPU where they were not; all ranks must call it."""
    if isinstance(value, dict):
        return {key: gather(item) for key, item in value.items()}
    if isinstance(value, list):
        return [gather(item) for item in value]
    return value.detach().full_tensor().cpu() if is_sharded(value) else value


def shard_like(value: Tensor, own: Tensor) -> Tensor:
    """The share of a whole tensor that this rank has of `own`; the tensor itself where `own` is whole."""
    if not is_sharded(own) or is_sharded(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = own.device_mesh, own.placements  # type: ignore[attr-defined]
    # Every rank has read the same file: each takes its part, and nothing is sent.
    return distribute_tensor(value.to(own.device), mesh, placements, src_data_rank=None)
