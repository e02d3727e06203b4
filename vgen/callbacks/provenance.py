"""Writes down what a stage was trained with."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vgen.files import write_json

_PACKAGES = ("vgen", "torch", "lightning", "diffusers", "jsonargparse", "av", "transformers")


class Provenance(Callback):
    """Writes `<run>/<stage>/environment.json`: versions, hardware, git commit, parameters, data, command."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file, on the first rank."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        facts = {
            "command": "vgen " + " ".join(sys.argv[1:]),
            "git": _git_commit(),
            "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
            "hardware": _hardware(trainer),
            "parameters": parameter_table(pl_module),
            "world_size": trainer.world_size,
            "precision": str(trainer.precision),
            "data": {"class": type(data).__name__, "fingerprint": getattr(data, "fingerprint", None)},
        }
        write_json(Path(trainer.default_root_dir) / "environment.json", facts)


def parameter_table(module: torch.nn.Module) -> list[list[Any]]:
    """Parameters of each direct child network, [name, count] with ` (frozen)` behind the name where none trains."""
    rows: list[list[Any]] = []
    for name, child in module.named_children():
        count = sum(p.numel() for p in child.parameters())
        if count:
            frozen = not any(p.requires_grad for p in child.parameters())
            rows.append([name + (" (frozen)" if frozen else ""), count])
    return rows


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")


def _hardware(trainer: Trainer) -> str:
    if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    return f"{trainer.world_size} x CPU process, {torch.get_num_threads()} threads each, {platform.machine()}"
