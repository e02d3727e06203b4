"""Writes down what a stage was trained with, and says it in a few lines at the start."""

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vgen.errors import UserError
from vgen.files import write_json

_PACKAGES = ("vgen", "torch", "lightning", "diffusers", "jsonargparse", "av", "transformers")


class Provenance(Callback):
    """Writes `<run>/<stage>/environment.json`, prints it in brief, and gives it to the loggers with the configuration.

    It holds versions, hardware, git commit, parameters (beside the published counts), data, batch and command, and one
    entry in `starts` for every time that the stage was begun or resumed.

    Args:
        recipe: Plain configuration of the stage, for the loggers; the run directory has it as config.yaml.
        published: Published number of parameters of each network of the family, by class name; what stands behind the
            name, in brackets, says of which of several sizes: `{"Unet3D (MUG, MHAD)": 42731203}`.
    """

    def __init__(self, recipe: Mapping[str, Any] | None = None, published: Mapping[str, int] | None = None) -> None:
        self.recipe, self.published = dict(recipe or {}), dict(published or {})
        self._facts: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file and informs the loggers, on the first rank."""
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "environment.json"
        commit = _git_commit()
        start = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "git": commit, "host": platform.node()}
        self._facts = {
            "command": "vgen " + " ".join(sys.argv[1:]),
            "git": commit,
            "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
            "hardware": _hardware(trainer),
            "parameters": parameter_table(pl_module),
            "published": published_counts(pl_module, self.published),
            "world_size": trainer.world_size,
            "precision": str(trainer.precision),
            "batch": _batch(trainer),
            "data": _data(trainer),
            "starts": [*_earlier_starts(path, bool(trainer.ckpt_path)), start],
        }
        write_json(path, self._facts)
        for logger in trainer.loggers:
            logger.log_hyperparams({"recipe": self.recipe, **self._facts})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds what is known only now: the step that it goes on from, and how many there are to be."""
        if not trainer.is_global_zero:
            return
        total = trainer.estimated_stepping_batches
        self._facts["planned_steps"] = int(total) if math.isfinite(total) else None
        self._facts["starts"][-1]["step"] = trainer.global_step
        write_json(Path(trainer.default_root_dir) / "environment.json", self._facts)
        stage = getattr(pl_module, "stage_name", None) or "fit"
        for line in in_brief(self._facts):
            print(f"[{stage}] {line}", flush=True)


def in_brief(facts: Mapping[str, Any]) -> list[str]:
    """The lines that are printed at the start."""
    data, batch = facts["data"], facts["batch"]
    total = sum(count for _, count in facts["parameters"])
    lines = [found["text"] for found in facts["published"]] or [f"{total:,} parameters"]
    sizes = ", ".join(f"{data[k]:,} {k.removesuffix('_clips')}" for k in ("train_clips", "val_clips") if data.get(k))
    lines.append(f"data {data['class']}: {sizes} clips, fingerprint {str(data['fingerprint'])[:12]}")
    parts = f"{batch['devices']} device{'s' if batch['devices'] > 1 else ''} x {batch['per_device']}"
    parts += f" x {batch['accumulation']} accumulated" if batch["accumulation"] > 1 else ""
    planned = f", {facts['planned_steps']:,} steps" if facts.get("planned_steps") else ""
    lines.append(f"batch {batch['global']} clips ({parts}), {facts['precision']}{planned}")
    lines.append(f"{facts['hardware']}; git {_short(facts['git'])}")
    if (step := facts["starts"][-1].get("step", 0)) > 0:
        lines.append(f"goes on from step {step:,}")
    return lines


def parameter_table(module: torch.nn.Module) -> list[list[Any]]:
    """Parameters of each direct child network, [name, count] with ` (frozen)` behind the name where none trains."""
    rows: list[list[Any]] = []
    for name, child in module.named_children():
        count = sum(p.numel() for p in child.parameters())
        if count:
            frozen = not any(p.requires_grad for p in child.parameters())
            rows.append([name + (" (frozen)" if frozen else ""), count])
    return rows


def published_counts(module: torch.nn.Module, published: Mapping[str, int]) -> list[dict[str, Any]]:
    """Compares the networks of a module with the published counts, by class name.

    Returns:
        One dict per network that has a published count: `network` (where it is), `class`, `count`, `published` (all
        counts of that class), `equal`, and `text`, which says it in words.
    """
    sizes: dict[str, dict[str, int]] = {}
    for name, count in published.items():
        network, _, which = name.partition(" (")
        sizes.setdefault(network, {})[which.rstrip(")")] = count
    found = []
    for path, part in module.named_modules():
        known = sizes.get(type(part).__name__)
        if known is None:
            continue
        kind, count = type(part).__name__, sum(p.numel() for p in part.parameters())
        equal = [which for which, size in known.items() if size == count]
        if equal:
            text = f"{kind} {count:,} parameters = published" + (f" ({equal[0]})" if equal[0] else "")
        else:
            others = " or ".join(f"{size:,}" + (f" ({which})" if which else "") for which, size in known.items())
            text = f"{kind} {count:,} parameters, differs from the published {others}"
        row = {"network": path, "class": kind, "count": count, "published": list(known.values())}
        found.append({**row, "equal": bool(equal), "text": text})
    return found


def _batch(trainer: Trainer) -> dict[str, int | None]:
    per_device = getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]
    accumulation = trainer.accumulate_grad_batches
    parts = {"per_device": per_device, "devices": trainer.world_size, "accumulation": accumulation}
    return {**parts, "global": None if per_device is None else per_device * trainer.world_size * accumulation}


def _data(trainer: Trainer) -> dict[str, Any]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    facts = {"class": type(data).__name__, "fingerprint": getattr(data, "fingerprint", None)}
    for split in ("train", "val"):
        try:
            facts[f"{split}_clips"] = len(data.dataset(split))
        except (AttributeError, UserError):  # a DataModule of another kind; a set without clips for validation
            facts[f"{split}_clips"] = None
    return facts


def _earlier_starts(path: Path, resumed: bool) -> list[dict[str, Any]]:
    """The starts that the file knows, where this one goes on from them."""
    if not resumed:
        return []
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return starts if isinstance(starts, list) else []


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


def _short(commit: str | None) -> str:
    if commit is None:
        return "none"
    return commit[:10] + (" with changes that are not committed" if commit.endswith("-dirty") else "")


def _hardware(trainer: Trainer) -> str:
    if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    per_process = f"{threads} thread{'s' if threads > 1 else ''} each of {os.cpu_count()} cores"
    return f"{trainer.world_size} x CPU process, {per_process}, {platform.machine()}"
