"""Vectors of official networks, and the cases that run ours on them."""

import fnmatch
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import vgen.models

Case = Callable[["Vector"], Mapping[str, Tensor | None]]
CASES: dict[tuple[str, str], Case] = {}
# What vectors are about besides the families under vgen/models.
PARTS = frozenset({"metrics", "diffusion", "gan_losses"})


def case(family: str, target: str) -> Callable[[Case], Case]:
    """Registers a function that computes our outputs for a vector, by the names of the vector's outputs.

    An output that the case maps to None has no value that could be compared (the case says why).
    """

    def register(function: Case) -> Case:
        assert (family, target) not in CASES, f"two cases for {family}/{target}"
        CASES[family, target] = function
        return function

    return register


@dataclass(frozen=True)
class Vector:
    """One file of the parity directory and its sidecar."""

    path: Path
    sidecar: dict[str, Any]

    @classmethod
    def read(cls, sidecar: Path) -> "Vector":
        return cls(sidecar.with_suffix(".safetensors"), json.loads(sidecar.read_text()))

    @property
    def name(self) -> str:
        return f"{self.family}/{self.path.stem}"

    @property
    def family(self) -> str:
        return self.sidecar["family"]

    @property
    def target(self) -> str:
        return self.sidecar["target"]

    @property
    def constructor(self) -> dict[str, Any]:
        return self.sidecar.get("constructor", {})

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """`param`, `in` or `out` tensors without the prefix; half precision, where weights are stored so, as fp32."""
        stored = load_file(self.path)
        found = {key.split("/", 1)[1]: value for key, value in stored.items() if key.startswith(f"{prefix}/")}
        halves = (torch.float16, torch.bfloat16)
        return {key: value.float() if value.dtype in halves else value for key, value in found.items()}

    def tolerance(self, output: str) -> tuple[float, float]:
        """(atol, rtol): those of the first pattern that fits the name, else those of the file."""
        tolerance = self.sidecar["tolerance"]
        for pattern, own in tolerance.get("outputs", {}).items():
            if fnmatch.fnmatchcase(output, pattern):
                return own["atol"], own["rtol"]
        return tolerance["atol"], tolerance["rtol"]


@dataclass(frozen=True)
class Deviation:
    output: str
    largest: float
    allowed: float

    @property
    def ok(self) -> bool:
        return self.largest <= self.allowed  # False for NaN


def run(vector: Vector) -> list[Deviation]:
    """Computes our outputs and compares every one: |ours - theirs| <= atol + rtol max|theirs|."""
    ours = CASES[vector.family, vector.target](vector)
    theirs = vector.tensors("out")
    unchecked = sorted(set(theirs) - set(ours))
    assert not unchecked, f"{vector.name}: the case computes no {', '.join(unchecked)}"
    deviations = []
    for name, reference in theirs.items():
        value = ours[name]
        if value is None:
            continue
        assert value.numel() == reference.numel(), f"{name}: {tuple(value.shape)}, not {tuple(reference.shape)}"
        if value.numel() > 1:
            assert value.shape == reference.shape, f"{name}: {tuple(value.shape)}, not {tuple(reference.shape)}"
        reference = reference.double()
        value = value.detach().double().reshape(reference.shape)
        # equal infinities (PSNR of equal pictures) agree, and set no scale
        difference = torch.where(value == reference, 0, (value - reference).abs())
        scale = reference[reference.isfinite()].abs()
        atol, rtol = vector.tolerance(name)
        largest = float(difference.max()) if difference.numel() else 0.0
        allowed = atol + rtol * float(scale.max()) if scale.numel() else atol
        deviations.append(Deviation(name, largest, allowed))
    return deviations


def shipped(family: str) -> bool:
    """Whether the package has a family of this name, or the part that such vectors are about."""
    return family in PARTS or any((Path(root) / family).is_dir() for root in vgen.models.__path__)


def find(directory: Path) -> list[Vector]:
    """All vectors below a directory, by name."""
    found = (path for path in sorted(directory.rglob("*.json")) if path.with_suffix(".safetensors").is_file())
    return [Vector.read(path) for path in found]
