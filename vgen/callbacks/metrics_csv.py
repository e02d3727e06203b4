"""Writes what is logged to one CSV file per stage, also over kills and resumes."""

import csv
import io
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from vgen.files import naming_disk_errors, write_text

_FIXED = ("step", "clips", "seconds")


class MetricsCSV(Logger):
    """Logger to `<dir>/metrics.csv`.

    Columns: `step` (optimiser steps of the generator), `clips` (clips seen), `seconds` (training time so far, the
    runs before a resume included), then one per metric in the order of their appearance. A resumed run drops the rows
    that lie after its checkpoint and goes on.

    Args:
        dir: Folder of the file.
    """

    def __init__(self, dir: str) -> None:
        super().__init__()
        self.path = Path(dir) / "metrics.csv"
        self._columns: list[str] | None = None
        self._rows: list[dict[str, str]] = []
        self._started = time.monotonic()
        self._seconds_before = 0.0

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one file only."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration is stored as config.yaml instead."""

    def _open(self, first: dict[str, str]) -> None:
        """Keeps what earlier runs have written before the first row of this one.

        At the step of that row these are other metrics: a run that goes on with a validation has the training's row.
        """
        self._columns = list(_FIXED)
        if self.path.is_file():
            # Up to the last whole line: a kill may have torn the one behind it.
            whole = self.path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
            reader = csv.DictReader(io.StringIO(whole))
            step, metrics = int(first["step"]), first.keys() - set(_FIXED)
            for row in reader:
                number = int(row["step"]) if (row.get("step") or "").isdigit() else step + 1
                if number > step or (number == step and any(row.get(key) for key in metrics)):
                    break
                self._rows.append(row)
            self._columns = list(reader.fieldnames or _FIXED)
            if self._rows:
                self._seconds_before = float(self._rows[-1]["seconds"] or 0.0)
        self._rewrite()

    def _rewrite(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns or _FIXED, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds one row."""
        step = int(step or 0) + 1  # Lightning counts the step under way from zero; the file counts the steps done
        row = {"step": str(step)} | {
            key: str(int(v)) if key == "clips" else f"{float(v):.7g}" for key, v in metrics.items() if key != "epoch"
        }
        if self._columns is None:
            self._open(row)
        row["seconds"] = f"{self._seconds_before + time.monotonic() - self._started:.2f}"
        self._rows.append(row)
        assert self._columns is not None
        if new := [key for key in row if key not in self._columns]:
            self._columns += new
            self._rewrite()
            return
        # A row that a kill or a full disk cuts short is dropped by the run that goes on.
        with naming_disk_errors(self.path), open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(row)
