"""Assembles the page and writes it."""

import re
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from vgen import __version__
from vgen.errors import UserError
from vgen.files import write_text
from vgen.report import sections
from vgen.report.markup import Markup, duration, join, number, tag
from vgen.report.media import VIDEO_BUDGET, Media
from vgen.report.read import Run, Stage, read_run
from vgen.report.samples import samples

_HEADLINE_METRICS = 4


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z").strip()


def _stage_row(stage: Stage) -> Markup:
    step, planned = stage.progress.get("step"), stage.planned_steps
    share = 1.0 if stage.state == "finished" else min((step or 0) / planned, 1.0) if planned else None
    reached = number(step) if step is not None else "no"
    goal = f" of {planned:,}" if planned and stage.state != "finished" else ""
    text = f"{reached}{goal} steps" + (f" · {duration(s)}" if (s := stage.progress.get("seconds")) else "")
    if (left := stage.seconds_left) is not None:
        text += f" · about {duration(left)} left"
    bar = tag("div", tag("div", style=f"width:{share * 100:.1f}%"), class_="bar") if share is not None else None
    return tag(
        "li",
        tag("div", tag("b", stage.name), tag("span", text if stage.state != "not started" else "not started")),
        bar,
        class_=f"stage {stage.state.replace(' ', '-')}",
    )


def _recipe(run: Run) -> str:
    """The configuration files that the command named."""
    commands = [str(stage.environment["command"]) for stage in run.stages if stage.environment.get("command")]
    named = re.findall(r"(?:--config|-c)[ =](\S+)", commands[0]) if commands else []
    return " + ".join(named)


def _headline(run: Run, runs: Sequence[Run], now: float) -> Markup:
    when = "nothing written yet"
    if run.updated is not None:
        ago = max(now - run.updated, 0)
        since = f", {duration(ago)} before this page" if run.state == "running" and ago >= 60 else ""
        when = f"last written {_moment(run.updated)}{since}"
    state = tag("span", run.state, class_=f"state {run.state.replace(' ', '-')}")
    tiles = [
        tag(
            "div",
            tag("b", number(metric["value"], 3), tag("small", f" {metric.get('unit') or ''}")),
            tag("span", name.replace("_", " ")),
        )
        for evaluation in run.evaluations
        for name, metric in evaluation.metrics.items()
        if isinstance(metric.get("value"), (int, float))
    ]
    random = [
        tag(
            "p",
            f"Built with a randomly initialised network in place of a pretrained one: {', '.join(run.random_parts)}.",
            class_="warning",
        )
        if run.random_parts
        else None
    ]
    return tag(
        "div",
        tag("div", tag("h2", sections.run_name(run, runs) or _recipe(run) or run.name), state, class_="title"),
        tag("p", [_recipe(run), " · "] if len(runs) > 1 and _recipe(run) else None, when, class_="minor"),
        tag("ul", [_stage_row(stage) for stage in run.stages], class_="stages"),
        tag("div", tiles[:_HEADLINE_METRICS], class_="tiles") if tiles else None,
        random,
        class_="card headline",
    )


def _problems(runs: Sequence[Run], media: Media) -> Markup | None:
    lines = [f"{run.name}: {problem}" for run in runs for problem in run.problems]
    lines += [f"video {problem}" for problem in media.unreadable]
    if media.left_out:
        lines.append(f"left out to keep the page small: {', '.join(media.left_out)}")
    return tag("ul", [tag("li", line) for line in lines], class_="card note") if lines else None


def render(runs: Sequence[Run], now: float | None = None, video_budget: int = VIDEO_BUDGET) -> str:
    """Renders runs side by side as one self-contained HTML page.

    Args:
        runs: What `read_run` returned.
        now: Unix time that the page names; None takes the clock.
        video_budget: Bytes of video that may go into the page; what is beyond it is named instead.
    """
    now = time.time() if now is None else now
    media = Media(video_budget)
    found = {
        "Samples": samples(runs, media),
        "Metrics": sections.metrics(runs),
        "Curves": sections.curves(runs),
        "Configuration": sections.configuration(runs),
        "Cost": sections.cost(runs),
        "Provenance": sections.provenance(runs),
    }
    found["Notes"] = _problems(runs, media)
    shown = {name: content for name, content in found.items() if content}
    missing = [name.lower() for name, content in found.items() if not content and name != "Notes"]
    title = " · ".join(run.name for run in runs)
    body = [
        tag(
            "header",
            tag("div", tag("span", "vgen", class_="brand"), tag("h1", title), class_="inner"),
            tag("nav", tag("div", [tag("a", name, href=f"#{name.lower()}") for name in shown], class_="inner")),
        ),
        tag(
            "main",
            tag("div", [_headline(run, runs, now) for run in runs], class_="headlines"),
            [tag("section", tag("h2", name), content, id=name.lower()) for name, content in shown.items()],
            tag("p", f"Nothing yet to show of: {', '.join(missing)}.", class_="minor") if missing else None,
        ),
        tag("footer", f"Written {_moment(now)} by vgen {__version__}. Run `vgen report` again to bring it up to date."),
    ]
    return document(f"{title} · vgen report", body)


def document(title: str, body: Sequence[Markup]) -> str:
    """A whole page with its style and script in it, from which nothing is loaded from elsewhere."""
    folder = files("vgen.report")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    # The policy makes the browser itself refuse whatever would leave this file.
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", title),
        tag("style", Markup(style)),
    )
    page = tag("body", body, tag("script", Markup(script)))
    return join(Markup("<!doctype html>\n"), tag("html", head, page, lang="en"), Markup("\n"))


def write_report(run_dirs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Writes the report of one or several runs.

    The file takes its place in one step: a browser never sees half a page.

    Args:
        run_dirs: Run directories, in the order of the page's columns.
        out: The file; None writes `report.html` into the run directory, or into the working directory for several.

    Returns:
        The file that was written.

    Raises:
        UserError: A folder is no run, or the file cannot be written.
    """
    if not run_dirs:
        raise UserError("no run directory given")
    runs = [read_run(folder) for folder in run_dirs]
    if out is None:
        out = runs[0].folder / "report.html" if len(runs) == 1 else "report.html"
    out = Path(out)
    page = render(runs)
    try:
        write_text(out, page)
    except OSError as error:  # a full disk is said by `write_text` itself
        raise UserError(f"cannot write the report: {error.strerror or error}", where=str(out)) from error
    return out
