"""Reads a run directory as far as it is there: a run that still trains has gaps, an interrupted one has more."""

import csv
import json
import math
import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from vgen.errors import UserError

State = Literal["finished", "running", "interrupted", "not started"]

# A run that has written nothing for this long counts as interrupted. Metrics are written every few steps and at least
# once an epoch; the longest silent part is a sampling of the whole evaluation set.
RUNNING_SECONDS = 15 * 60

_SAMPLE_NAME = re.compile(r"step_(\d+)_(.+)\.mp4$")
_AXES = ("step", "clips", "seconds")


Axis = Literal["steps", "clips", "seconds"]


@dataclass
class Series:
    """One metric over training: `values[i]` was logged after `steps[i]` optimiser steps, `clips[i]`, `seconds[i]`."""

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def along(self, axis: Axis) -> list[float]:
        """Positions on an axis; empty where the run did not log them."""
        return {"steps": self.steps, "clips": self.clips, "seconds": self.seconds}[axis]

    def at(self, indices: Sequence[int]) -> "Series":
        """The chosen points."""
        chosen = [[values[i] for i in indices] if values else [] for values in vars(self).values()]
        return Series(*chosen)


@dataclass
class Clip:
    """A video file with what is known of it."""

    path: Path
    kind: str
    step: int | None = None
    captions: tuple[str, ...] = ()
    rows: str = ""  # what the rows of a grid are
    fps: float = 8.0
    layout: Mapping[str, Any] | None = None  # where the cells of a figure lie, see `vgen.video.figure.Layout`

    @property
    def width(self) -> int | None:
        """Pixels of a figure, where its layout is known."""
        try:
            left, columns, cell, gap = (int((self.layout or {})[key]) for key in ("left", "columns", "width", "gap"))
        except (KeyError, TypeError, ValueError):
            return None
        return left + columns * (cell + gap) - gap


@dataclass
class Stage:
    """One stage's folder."""

    name: str
    state: State = "not started"
    progress: dict[str, float] = field(default_factory=dict)  # step, clips, seconds: the newest known
    series: dict[str, Series] = field(default_factory=dict)
    clips: list[Clip] = field(default_factory=list)
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def planned_steps(self) -> int | None:
        """How many steps the training is to have: as it counted itself, or as its trainer was told."""
        trainer = self.config.get("trainer")
        told = trainer.get("max_steps") if isinstance(trainer, dict) else None
        for steps in (self.environment.get("planned_steps"), told):
            if isinstance(steps, int) and steps > 0:
                return steps
        return None

    @property
    def seconds_left(self) -> float | None:
        """Time until the end of a stage that is running, at its pace so far."""
        step, seconds, planned = self.progress.get("step"), self.progress.get("seconds"), self.planned_steps
        if self.state != "running" or not step or not seconds or not planned:
            return None
        return max(planned - step, 0) * seconds / step

    @property
    def parameters(self) -> list[tuple[str, float]]:
        """Parameters of every network, as the run counted them."""
        rows = self.environment.get("parameters")
        if isinstance(rows, dict):
            rows = list(rows.items())
        return [(str(row[0]), row[1]) for row in rows or [] if len(row) == 2 and isinstance(row[1], (int, float))]

    @property
    def peak_memory_gb(self) -> float | None:
        """The highest logged memory."""
        peaks = [max(s.values) for name, s in self.series.items() if name.startswith("perf/") and "mem" in name]
        return max(peaks, default=None)


@dataclass
class Evaluation:
    """One file of the evaluation folder."""

    name: str
    protocol: str
    metrics: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    note: str


@dataclass
class Run:
    """A whole run directory."""

    name: str
    folder: Path
    state: State
    updated: float | None
    stages: list[Stage]
    evaluations: list[Evaluation]
    generated: list[Clip]
    config_text: str
    config: dict[str, Any]
    random_parts: list[str]  # config keys under which a pretrained network was left at random values
    problems: list[str]  # files that could not be read, one line each


class _Loader(yaml.SafeLoader):
    """Reads the tags of other YAML writers as plain values instead of refusing the whole file."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def _text(path: Path, problems: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or error}")
        return ""


def _mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    """Reads a JSON or YAML file that holds a mapping; anything else is a problem of one line, not an error."""
    text = _text(path, problems)
    if not text:
        return {}
    try:
        data = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        problems.append(f"{path.parent.name}/{path.name}: {str(error).splitlines()[0]}")
        return {}
    if not isinstance(data, dict):
        problems.append(f"{path.parent.name}/{path.name}: expected a mapping, found {type(data).__name__}")
        return {}
    return data


def _number(cell: object) -> float | None:
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def read_metrics(path: Path, problems: list[str]) -> tuple[dict[str, Series], dict[str, float]]:
    """Reads metrics.csv.

    A row is a list of cells of which any may be empty; the last one may be half written while the run trains. A step
    that was logged twice (training went on from an earlier checkpoint) counts once, with what came later.

    Returns:
        The series of every metric in order of steps, and the newest step, clips and seconds.
    """
    points: dict[str, dict[float, float]] = {}
    axes: dict[str, dict[float, float]] = {"clips": {}, "seconds": {}}
    progress: dict[str, float] = {}
    for row in csv.DictReader(_text(path, problems).splitlines()):
        step = _number(row.get("step"))
        if step is None or not math.isfinite(step):
            continue
        for axis in _AXES:
            value = _number(row.get(axis))
            if value is not None and math.isfinite(value):
                progress[axis] = value
                if axis in axes:
                    axes[axis][step] = value
        for name, cell in row.items():
            value = _number(cell) if isinstance(name, str) and name not in _AXES else None
            if value is not None:
                points.setdefault(name, {})[step] = value
    series = {}
    for name, by_step in points.items():
        steps = sorted(by_step)
        others = {axis: _interpolated(known, steps) for axis, known in axes.items()}
        series[name] = Series(steps, [by_step[step] for step in steps], **others)
    return series, progress


def _interpolated(known: Mapping[float, float], steps: Sequence[float]) -> list[float]:
    """Clips or seconds at each step, from the rows that say them; empty where none does."""
    at = sorted(known)
    if not at:
        return []
    result = []
    for step in steps:
        right = min(bisect_left(at, step), len(at) - 1)
        left = max(right - 1, 0) if at[right] > step else right
        low, high = at[left], at[right]
        share = (step - low) / (high - low) if high > low else 0.0
        result.append(known[low] + min(max(share, 0.0), 1.0) * (known[high] - known[low]))
    return result


def _read_clips(folder: Path, problems: list[str]) -> Iterator[Clip]:
    for path in sorted(folder.glob("*.mp4")):
        match = _SAMPLE_NAME.match(path.name)
        sidecar = _mapping(path.with_suffix(".json"), problems)
        captions = sidecar.get("captions") or sidecar.get("caption") or ()
        captions = [captions] if isinstance(captions, str) else captions
        yield Clip(
            path,
            kind=str(sidecar.get("kind") or (match[2] if match else "generated")),
            step=int(match[1]) if match else None,
            rows=str(sidecar.get("rows") or ""),
            fps=_number(sidecar.get("fps")) or 8.0,
            layout=layout if isinstance(layout := sidecar.get("layout"), dict) else None,
            captions=tuple(str(caption) for caption in captions) if isinstance(captions, (list, tuple)) else (),
        )


def _newest(folder: Path) -> float | None:
    """When anything that training writes was last touched."""
    files = [folder / "metrics.csv", *folder.glob("checkpoints/*"), *folder.glob("samples/*")]
    times = []
    for path in files:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def _read_stage(folder: Path, now: float, problems: list[str]) -> tuple[Stage, float | None]:
    done = _mapping(folder / "done.json", problems)
    series, progress = read_metrics(folder / "metrics.csv", problems)
    progress |= {axis: value for axis in _AXES if (value := _number(done.get(axis))) is not None}
    updated = _newest(folder)
    state: State = "not started"
    if (folder / "done.json").is_file():
        state = "finished"
    elif updated is not None:
        state = "running" if now - updated < RUNNING_SECONDS else "interrupted"
    stage = Stage(
        name=folder.name,
        state=state,
        progress=progress,
        series=series,
        clips=list(_read_clips(folder / "samples", problems)),
        config_text=_text(folder / "config.yaml", problems),
        config=_mapping(folder / "config.yaml", problems),
        environment=_mapping(folder / "environment.json", problems),
    )
    return stage, updated


def _read_evaluations(folder: Path, problems: list[str]) -> Iterator[Evaluation]:
    for path in sorted(folder.glob("*.json")):
        data = _mapping(path, problems)
        metrics = data.get("metrics")
        if not isinstance(metrics, dict):
            problems.append(f"evaluation/{path.name}: no metrics in it")
            continue
        yield Evaluation(
            name=path.stem,
            protocol=str(data.get("protocol") or ""),
            metrics={str(k): v if isinstance(v, dict) else {"value": v} for k, v in metrics.items()},
            settings=settings if isinstance(settings := data.get("settings"), dict) else {},
            note=str(data.get("note") or ""),
        )


def flatten(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields `a.b.c, value` for every leaf of nested mappings; lists are leaves unless they hold mappings."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(config, list) and any(isinstance(item, dict) for item in config):
        for index, item in enumerate(config):
            yield from flatten(item, f"{prefix}[{index}]")
    else:
        yield prefix, config


def _state_of(stages: list[Stage]) -> State:
    """A run is what its furthest unfinished stage is."""
    states = [stage.state for stage in stages]
    if states and all(state == "finished" for state in states):
        return "finished"
    for state in ("running", "interrupted"):
        if state in states:
            return state  # type: ignore[return-value]  # narrowed by the tuple above
    return "interrupted" if "finished" in states else "not started"


def read_run(folder: str | Path, now: float | None = None) -> Run:
    """Reads a run directory.

    Args:
        folder: `runs/<name>`.
        now: Unix time to judge by whether an unfinished stage still runs; None takes the clock.

    Raises:
        UserError: The folder does not exist or holds nothing that a run writes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no run directory {str(folder)!r}", hint="give the folder that `vgen fit` wrote, runs/<name>")
    now = time.time() if now is None else now
    problems: list[str] = []
    config = _mapping(folder / "config.yaml", problems)
    declared = list(stages) if isinstance(stages := config.get("stages"), dict) else []
    marks = ("metrics.csv", "done.json", "checkpoints", "config.yaml")
    present = sorted(p.name for p in folder.iterdir() if p.is_dir() and any((p / mark).exists() for mark in marks))
    names = declared + [name for name in present if name not in declared]
    read = [_read_stage(folder / str(name), now, problems) for name in names]
    stages_read = [stage for stage, _ in read]
    evaluations = list(_read_evaluations(folder / "evaluation", problems))
    generated = list(_read_clips(folder / "generated", problems))
    if not config and not stages_read and not evaluations and not generated:
        raise UserError(
            f"{str(folder)!r} holds no run",
            where="looked for config.yaml, <stage>/metrics.csv, evaluation/*.json, generated/*.mp4",
        )
    every = dict(flatten(config)) if config else {k: v for s in stages_read for k, v in flatten(s.config, s.name)}
    return Run(
        name=folder.resolve().name,
        folder=folder,
        state=_state_of(stages_read),
        updated=max((t for _, t in read if t is not None), default=None),
        stages=stages_read,
        evaluations=evaluations,
        generated=generated,
        config_text=_text(folder / "config.yaml", problems),
        config=config,
        random_parts=[
            k.removesuffix(".random_init") for k, v in every.items() if v is True and k.endswith(".random_init")
        ],
        problems=list(dict.fromkeys(problems)),
    )
