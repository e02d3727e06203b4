"""The table of a benchmark: one row for each recipe and baseline, as text, Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Row:
    """One line of the table.

    Args:
        name: Of the recipe or baseline.
        metrics: Entries of an evaluation record.
        cost: What the training took (`vgen.cli.benchmark.work.cost`) and `sample_clips_per_s`; empty for a baseline.
        error: Why there are no numbers.
        settings: What else belongs to the record: weights, conditions.
    """

    name: str
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Column:
    head: str
    key: str
    form: str
    cost: bool = False
    of: Literal["value", "low", "high"] = "value"  # low and high: of the 95 % bootstrap interval

    @property
    def name(self) -> str:
        """In the CSV."""
        return self.key if self.of == "value" else f"{self.key}/{self.of}"


_COLUMNS = (
    _Column("frechet_small", "frechet_small", ".3f"),
    _Column("low", "frechet_small", ".2f", of="low"),
    _Column("high", "frechet_small", ".2f", of="high"),
    _Column("class accuracy", "class_accuracy", ".3f"),
    _Column("diversity", "diversity", ".3f"),
    _Column("reconstruction dB", "psnr/set", ".2f"),
    _Column("made clips/s", "sample_clips_per_s", ".2f", True),
    _Column("trained clips/s", "train_clips_per_s", ".1f", True),
    _Column("memory GB", "peak_memory_gb", ".2f", True),
    _Column("parameters", "parameters", ",", True),
    _Column("clips seen", "clips_seen", ",", True),
    _Column("seconds", "train_seconds", ".0f", True),
)


def _value(row: Row, column: _Column) -> Any:
    value = row.cost.get(column.key) if column.cost else row.metrics.get(column.key, {}).get(column.of)
    return sum(value.values()) if isinstance(value, Mapping) else value


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    lines = [["", *(column.head for column in _COLUMNS)]]
    for row in rows:
        values = [_value(row, column) for column in _COLUMNS]
        lines.append(
            [row.name, *("-" if v is None else format(v, c.form) for v, c in zip(values, _COLUMNS, strict=True))]
        )
    return lines


def as_text(rows: Sequence[Row]) -> list[str]:
    """Lines for a terminal; a row without numbers says why."""
    cells = _cells(rows)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    errors = [None, *(row.error for row in rows)]
    lines = []
    for line, error in zip(cells, errors, strict=True):
        rest = [f"failed: {error}"] if error else [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([line[0].ljust(widths[0]), *rest]).rstrip())
    return lines


def as_markdown(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    head, *body = _cells(rows)
    lines = [_piped(head), _piped(["---", *["---:"] * len(_COLUMNS)])]
    for cells, row in zip(body, rows, strict=True):
        failed = [f"failed: {row.error}".replace("|", "\\|"), *[""] * (len(_COLUMNS) - 1)]
        lines.append(_piped([cells[0], *failed] if row.error else cells))
    return "\n".join(lines) + "\n"


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_csv(rows: Sequence[Row]) -> str:
    """The same in full precision, with a column for errors."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *(column.name for column in _COLUMNS), "error"])
    for row in rows:
        values = [_value(row, column) for column in _COLUMNS]
        writer.writerow([row.name, *("" if value is None else value for value in values), row.error or ""])
    return text.getvalue()
