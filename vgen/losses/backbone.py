"""Weights of torchvision's image networks, which losses look at pictures with."""

import os
from pathlib import Path

import torch
from torch import Tensor

from vgen.errors import UserError


def read_backbone(weights: str | None, file: str, what: str, instead: str) -> dict[str, Tensor]:
    """Reads torchvision's state dict of a network.

    Args:
        weights: The file; None looks into torch's hub cache.
        file: Its published name.
        what: Which weights these are and what for, for the message.
        instead: What else can be configured, for the message.

    Raises:
        UserError: It is not there.
    """
    path = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / file
    if not path.is_file():
        url = f"https://download.pytorch.org/models/{file}"
        raise UserError(
            f"{what} are not at {os.fspath(path)}",
            where="perceptual.weights" if weights else f"torch's hub cache ({file})",
            hint=f"download {url} to that place; or use {instead}, or write out `random_init: true`",
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
