"""The result of an evaluation as a file that says what it rests on."""

import csv
import importlib.metadata
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgen.files import write_json
from vgen.metrics.sources import ClipSource

_PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "lpips", "transformers", "av")
_COLUMNS = (
    "protocol", "metric", "value", "low", "high", "std", "floor", "n", "n_real", "unit", "detector", "detector_kind",
    "detector_sha256",
)  # fmt: skip


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
        study: Neighbours and diversity (`vgen.metrics.study.Study.to_dict`), where they were looked at.
    """

    protocol: str
    metrics: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    study: Mapping[str, Any] | None = None

    def numbers(self) -> dict[str, float]:
        """Values for a logger: `fvd/stylegan_v_16`, and `fvd_floor/stylegan_v_16`."""
        found = {}
        for key, metric in self.metrics.items():
            found[key] = float(metric["value"])
            if "floor" in metric:
                name, _, protocol = key.rpartition("/")
                found[f"{name}_floor/{protocol}"] = float(metric["floor"]["value"])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the form of all evaluations (docs/evaluation.md)."""
        note = "Clips, detector and statistics as the protocol says."
        content = {
            "protocol": self.protocol,
            "metrics": {key: dict(metric) for key, metric in self.metrics.items()},
            "settings": dict(self.settings),
            "note": " ".join([note, *(f"{text[0].upper()}{text[1:]}." for text in self.warnings)]),
        }
        return content if self.study is None else {**content, "study": dict(self.study)}

    def write(self, path: str | Path) -> None:
        """Writes the record as JSON, in one step; on several ranks, let one do it."""
        write_json(path, self.to_dict())

    def csv(self) -> str:
        """One line per metric, in full precision, under a line of names; a cell that does not apply is empty."""
        rows = []
        for key, metric in self.metrics.items():
            name, _, protocol = key.rpartition("/")
            flat = {**metric, "metric": name, "protocol": protocol, "floor": metric.get("floor", {}).get("value")}
            flat["detector"] = metric["detector"]["name"]
            flat["detector_kind"], flat["detector_sha256"] = metric["detector"]["kind"], metric["detector"]["sha256"]
            rows.append(flat)
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def table(self) -> list[str]:
        """The figures as lines of text for a terminal."""
        rows = [("metric", "value", "interval", "floor", "n", "n real")]
        for key, metric in self.metrics.items():
            interval = f"{metric['low']:.5g} to {metric['high']:.5g}" if "low" in metric else "-"
            floor = f"{metric['floor']['value']:.5g}" if "floor" in metric else "-"
            counts = (str(metric["n"]), str(metric.get("n_real") or "-"))
            rows.append((key, f"{metric['value']:.6g}", interval, floor, *counts))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self.study is not None:
            near, spread = self.study["neighbours"], self.study["diversity"]
            close = near["share_closer_than_reference_5"]
            lines += [
                "",
                f"nearest of {near['training_clips']} training clips: median distance "
                f"{near['generated']['median']:.4g} (reference {near['reference']['median']:.4g}: "
                f"{near['reference_is']}); {close:.1%} are closer than the closest 5 % of the reference",
                f"diversity: mean distance of two clips {spread['generated']:.4g}, of two real ones "
                f"{spread['real']:.4g}, ratio {spread['ratio']:.3f}",
            ]
        return lines + [f"note: {text}" for text in self.warnings]


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
