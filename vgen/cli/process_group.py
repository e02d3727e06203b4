"""The process group of a command that is no training, where a launcher (torchrun, srun) has started several ranks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from vgen.cli.launch import find_environment


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Joins the other ranks for the time of the block, and yields this rank's device.

    Args:
        device: What the command line says; `auto` and `cuda` become the GPU of this rank.
    """
    environment = find_environment()
    size = 1 if environment is None else environment.world_size()
    if environment is None or size == 1:
        yield device
        return
    gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if gpu:
        device = f"cuda:{environment.local_rank() % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    # Objects and counts pass over the CPU, states of metrics stay where they are.
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, rank=environment.global_rank(), world_size=size)
    try:
        yield device
    finally:
        distributed.destroy_process_group()
