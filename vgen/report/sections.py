"""The sections of the page, each a function from runs to markup; one that has nothing to show returns None."""

import math
import re
from collections.abc import Sequence
from typing import Any

from vgen.report.curves import Line, chart
from vgen.report.markup import Markup, duration, join, number, tag
from vgen.report.read import Axis, Run, Stage, flatten

_COLOURS = 8
# Metrics of one kind share a chart: the gradient norms of several networks, the rates of several optimisers.
_GROUPS = ("grad_norm", "lr")


def run_name(run: Run, runs: Sequence[Run]) -> Markup | None:
    """The run's name with its colour, where there is more than one run."""
    if len(runs) == 1:
        return None
    return tag("span", tag("i", class_=f"key c{runs.index(run) % _COLOURS}"), run.name, class_="run-name")


def side_by_side(runs: Sequence[Run], blocks: Sequence[Markup | None]) -> Markup | None:
    """One column per run that has something to show."""
    columns = [(run, block) for run, block in zip(runs, blocks, strict=True) if block]
    if not columns:
        return None
    cells = [tag("div", run_name(run, runs), block, class_="column") for run, block in columns]
    return tag("div", cells, class_="columns" if len(runs) > 1 else None)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def _rounded(metric: dict[str, Any]) -> dict[str, str]:
    """Value and interval with the same number of decimals, which leaves the value three significant digits."""
    value = metric.get("value")
    if not isinstance(value, (int, float)):
        return {"value": "–" if value is None else str(value)}
    numbers = {key: metric[key] for key in ("value", "low", "high") if isinstance(metric.get(key), (int, float))}
    size = max(abs(value), 1e-4)
    if not math.isfinite(value) or size >= 1e6:
        return {key: number(each) for key, each in numbers.items()}
    places = max(0, 2 - math.floor(math.log10(size)))
    return {key: f"{each:,.{places}f}" for key, each in numbers.items()}


def _measured(metric: dict[str, Any] | None, apart: bool) -> list[Markup]:
    """The cells of one metric of one run: value, interval and count in cells of their own, or stacked in one."""
    if metric is None:
        return [tag("td", "–", class_="value none")]
    shown = _rounded(metric)
    unit = tag("span", f" {metric['unit']}", class_="unit") if metric.get("unit") else None
    interval = f"{shown['low']} to {shown['high']}" if "low" in shown and "high" in shown else None
    count = number(n) if isinstance(n := metric.get("n"), (int, float)) else None
    value = join(tag("b", shown["value"]), unit)
    if apart:
        return [tag("td", cell, class_="value") for cell in (value, interval or "–", count or "–")]
    below = [tag("span", interval, class_="below"), tag("span", f"n = {count}" if count else None, class_="below")]
    return [tag("td", value, below, class_="value")]


def metrics(runs: Sequence[Run]) -> Markup | None:
    """Every evaluation as a table: one block per protocol, a column per run, intervals and counts beside the value."""
    blocks: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            names = blocks.setdefault((evaluation.name, evaluation.protocol), [])
            names += [name for name in evaluation.metrics if name not in names]
    tables = []
    for (name, protocol), rows in blocks.items():
        found = [next((e for e in run.evaluations if (e.name, e.protocol) == (name, protocol)), None) for run in runs]
        apart = len(runs) == 1
        head = ["value", "95 % interval", "n"] if apart else [run_name(run, runs) for run in runs]
        body = [
            tag("tr", tag("th", row, scope="row"), [_measured(e.metrics.get(row) if e else None, apart) for e in found])
            for row in rows
        ]
        notes = list(dict.fromkeys(e.note for e in found if e and e.note))
        header = tag("tr", [tag("th", name) for name in ("metric", *head)])
        settings = {key: value for e in found if e for key, value in flatten(e.settings)}
        listed = [join(tag("dt", key), tag("dd", str(value))) for key, value in settings.items()]
        tables.append(
            tag(
                "div",
                tag("h3", name.replace("_", " "), tag("span", protocol, class_="protocol") if protocol else None),
                tag(
                    "div",
                    tag("table", tag("thead", header), tag("tbody", body)),
                    class_="scroll",
                ),
                [tag("p", note, class_="note") for note in notes],
                tag("details", tag("summary", "settings"), tag("dl", listed)) if listed else None,
                class_="card",
            )
        )
    return tag("div", tables, class_="pairs") if tables else None


# ---- curves ----------------------------------------------------------------------------------------------------------


def _charts_of(name: str, runs: Sequence[Run]) -> tuple[list[Markup], list[Markup]]:
    """Charts of one stage: what is learned, and how fast it goes."""
    figures: dict[str, list[Line]] = {}
    for index, run in enumerate(runs):
        stage = next((s for s in run.stages if s.name == name), None)
        for metric, series in (stage.series if stage else {}).items():
            split, _, term = metric.partition("/")
            shared = split in ("train", "val", "test") and bool(term)
            grouped = split in _GROUPS and bool(term)
            figure = split if grouped else term if shared else metric
            own = split if shared else term if grouped else metric
            if len(runs) > 1:
                label, colour = f"{run.name} {own}" if shared or grouped else run.name, index
            else:
                used = len(figures.get(figure, []))
                label, colour = own, {"train": 0, "val": 1, "test": 2}.get(split, used)
            # Colours are runs here: what else a chart holds of a run is told apart by the stroke.
            dashed = len(runs) > 1 and (
                split != "train" if shared else any(x.colour == index for x in figures.get(figure, []))
            )
            figures.setdefault(figure, []).append(Line(label, colour % _COLOURS, dashed, series))
    # The loss first, then its terms, then what the optimiser did.
    order = sorted(figures, key=lambda key: (key != "loss", key in _GROUPS, key))
    for lines in figures.values():
        if len(lines) == len({line.colour for line in lines}) and len(runs) > 1:
            for line in lines:  # one curve per run: its name says it all
                line.label = runs[line.colour].name if len(runs) <= _COLOURS else line.label
    axes: tuple[Axis, ...] = ("steps", "clips", "seconds") if len(runs) > 1 else ("steps",)
    drawn = {figure: svg for figure in order if (svg := chart(figure, figures[figure], axes)) is not None}
    learned = [svg for figure, svg in drawn.items() if not figure.startswith("perf/")]
    speed = [svg for figure, svg in drawn.items() if figure.startswith("perf/")]
    return learned, speed


def curves(runs: Sequence[Run]) -> Markup | None:
    """Every logged metric, per stage; several runs in one chart."""
    names = list(dict.fromkeys(stage.name for run in runs for stage in run.stages))
    stages = []
    for name in names:
        learned, speed = _charts_of(name, runs)
        if not learned and not speed:
            continue
        grids = [tag("div", figures, class_="charts") if figures else None for figures in (learned, speed)]
        folded = tag("details", tag("summary", "speed and memory"), grids[1]) if speed else None
        stages.append(join(tag("h3", name), grids[0], folded))
    if not stages:
        return None
    switches = [
        tag("input", type="checkbox", id="log-scale"),
        tag("label", "logarithmic", for_="log-scale"),
        tag("input", type="checkbox", id="hide-raw"),
        tag("label", "smoothed only", for_="hide-raw"),
    ]
    if len(runs) > 1:
        switches.append(tag("span", "against", class_="minor"))
        for axis, text in (("steps", "optimiser steps"), ("clips", "clips seen"), ("seconds", "training time")):
            chosen = axis == "steps"
            switches.append(tag("input", type="radio", name="axis", id=f"axis-{axis}", checked=chosen))
            switches.append(tag("label", text, for_=f"axis-{axis}"))
    else:
        switches.append(tag("span", "against optimiser steps", class_="minor"))
    return tag("div", switches, stages, class_="switched")


# ---- configuration ---------------------------------------------------------------------------------------------------

_YAML_LINE = re.compile(r"^(\s*(?:- )?)([\w./+$-]+)(:)(?=\s|$)(.*)$")


def _highlighted(text: str) -> Markup:
    lines = []
    for line in text.splitlines():
        match = _YAML_LINE.match(line)
        if line.lstrip().startswith("#"):
            lines.append(tag("span", line, class_="comment"))
        elif match:
            lines.append(join(match[1], tag("span", match[2], class_="yaml-key"), match[3], match[4]))
        else:
            lines.append(join(line))
        lines.append(join("\n"))
    return join(lines)


def differences(runs: Sequence[Run]) -> Markup | None:
    """The settings in which several runs differ, but for the folder of the run."""
    flat = [{k: v for k, v in flatten(run.config) if k != "run_dir"} if run.config else {} for run in runs]
    if not any(flat):
        return None
    keys = [
        key
        for key in dict.fromkeys(k for f in flat for k in f)
        if len({repr(f[key]) if key in f else "" for f in flat}) > 1
    ]
    if not keys:
        return tag("p", "The runs have the same configuration.", class_="minor")
    rows = [
        tag("tr", tag("th", key, scope="row"), [tag("td", str(f.get(key, "–")), class_="mono") for f in flat])
        for key in keys
    ]
    head = tag("tr", tag("th", "setting"), [tag("th", run_name(run, runs)) for run in runs])
    table = tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll")
    return tag("div", tag("h3", "What differs"), table, class_="card")


def configuration(runs: Sequence[Run]) -> Markup | None:
    """The saved configuration of the run and of every stage, folded; of several runs, what differs between them."""
    if len(runs) > 1:
        return differences(runs)
    parts = [("whole run", runs[0].config_text), *((stage.name, stage.config_text) for stage in runs[0].stages)]
    folded = [
        tag("details", tag("summary", name), tag("pre", tag("code", _highlighted(text)), tabindex=0))
        for name, text in parts
        if text.strip()
    ]
    return join(folded) if folded else None


# ---- cost and provenance ---------------------------------------------------------------------------------------------


def _cost_of(run: Run) -> Markup | None:
    rows, total = [], 0.0
    for stage in run.stages:
        step, clips, seconds = (stage.progress.get(axis) for axis in ("step", "clips", "seconds"))
        total += seconds or 0.0
        rate = number(clips / seconds, 3) if clips and seconds else "–"
        cells = [number(step), number(clips), duration(seconds), rate, number(stage.peak_memory_gb, 3)]
        rows.append(tag("tr", tag("th", stage.name, scope="row"), [tag("td", cell, class_="num") for cell in cells]))
    if not rows:
        return None
    names = ("stage", "steps", "clips seen", "training time", "clips/s", "peak GB")
    head = tag("tr", [tag("th", name, class_="num" if i else None) for i, name in enumerate(names)])
    foot = None
    if len(rows) > 1:
        summed = tag("td", duration(total), class_="num")
        foot = tag("tfoot", tag("tr", tag("th", "together"), tag("td"), tag("td"), summed, tag("td"), tag("td")))
    table = tag("div", tag("table", tag("thead", head), tag("tbody", rows), foot), class_="scroll")
    networks = [network for stage in run.stages if (network := _networks_of(stage)) is not None]
    return tag("div", table, tag("div", networks, class_="pairs") if networks else None, class_="card")


def _networks_of(stage: Stage) -> Markup | None:
    """Parameters of a stage's networks, and what the published ones have."""
    if not stage.parameters:
        return None
    counted = [
        tag("tr", tag("th", name, scope="row"), tag("td", f"{int(count):,}", class_="num"))
        for name, count in stage.parameters
    ]
    head = tag("tr", tag("th", f"networks of {stage.name}"), tag("th", "parameters", class_="num"))
    published = stage.environment.get("published")
    rows = [row for row in published if isinstance(row, dict)] if isinstance(published, list) else []
    notes = [
        tag("li", str(row.get("text")), class_="equal" if row.get("equal") else "differs")
        for row in rows
        if row.get("text")
    ]
    table = tag("table", tag("thead", head), tag("tbody", counted))
    return tag("div", table, tag("ul", notes, class_="counts") if notes else None)


def cost(runs: Sequence[Run]) -> Markup | None:
    """Steps, clips, time, memory and parameters."""
    return side_by_side(runs, [_cost_of(run) for run in runs])


def _facts(value: object, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, (dict, list)):
        return [(key or prefix, str(leaf)) for key, leaf in flatten(value, prefix)]
    return [(prefix, str(value))] if value not in (None, "") else []


def _provenance_of(run: Run) -> Markup | None:
    # Stages of one run mostly share their environment: each fact is listed once, with the stage where they differ.
    per_stage = [(stage.name, dict(_environment(stage))) for stage in run.stages if stage.environment]
    keys = dict.fromkeys(key for _, facts in per_stage for key in facts)
    listed = []
    for key in keys:
        values = {facts[key] for _, facts in per_stage if key in facts}
        if len(values) == 1:
            shown: object = values.pop()
        else:
            shown = [tag("div", tag("span", f"{name}: ", class_="minor"), f[key]) for name, f in per_stage if key in f]
        listed.append(join(tag("dt", key), tag("dd", shown, class_="mono")))
    return tag("div", tag("dl", listed), class_="card") if listed else None


def _environment(stage: Stage) -> list[tuple[str, str]]:
    order = ("command", "git", "hardware", "versions")
    known = [key for key in order if key in stage.environment]
    rest = [key for key in stage.environment if key not in order and key not in ("parameters", "published")]
    return [fact for key in known + rest for fact in _facts(stage.environment[key], key)]


def provenance(runs: Sequence[Run]) -> Markup | None:
    """Command, commit, hardware and versions."""
    return side_by_side(runs, [_provenance_of(run) for run in runs])
