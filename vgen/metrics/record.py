"""The result of an evaluation as a file that says what it rests on."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgen.files import write_json
from vgen.metrics.sources import ClipSource

_PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "lpips", "transformers", "av")


@dataclass(frozen=True)
class EvaluationRecord:
    """Numbers, and everything that decides them.

    Args:
        protocol: Its name.
        metrics: By `<metric>/<protocol>`: `value`, `n` (generated clips), `n_real`, `unit`, `detector`; `low` and
            `high` where an interval is known, `std` and `trials`, `per_group`, and `floor`: the same number of two sets
            of real clips.
        settings: Protocol, both sources, clip lists, seed, versions.
        warnings: What a reader must know before comparing the numbers.
    """

    protocol: str
    metrics: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def numbers(self) -> dict[str, float]:
        """Values for a logger: `fvd/stylegan_v_16`, and `fvd_floor/stylegan_v_16`."""
        found = {}
        for key, metric in self.metrics.items():
            found[key] = float(metric["value"])
            if "floor" in metric:
                name, _, protocol = key.partition("/")
                found[f"{name}_floor/{protocol}"] = float(metric["floor"]["value"])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the form of all evaluations (docs/evaluation.md)."""
        note = "Clips, detector and statistics as the protocol says."
        return {
            "protocol": self.protocol,
            "metrics": {key: dict(metric) for key, metric in self.metrics.items()},
            "settings": dict(self.settings),
            "note": " ".join([note, *(f"{text[0].upper()}{text[1:]}." for text in self.warnings)]),
        }

    def write(self, path: str | Path) -> None:
        """Writes the record as JSON, in one step; on several ranks, let one do it."""
        write_json(path, self.to_dict())


def described(source: ClipSource) -> dict[str, Any]:
    """What a record says about a source."""
    return {
        "data": source.data,
        "split": source.split,
        "fingerprint": source.fingerprint,
        "filter": source.settings.get("resize", "unknown"),
        "settings": dict(source.settings),
    }


def versions() -> dict[str, str]:
    """Versions of vgen and of the packages that a number can depend on."""
    import vgen

    found = {"vgen": vgen.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
