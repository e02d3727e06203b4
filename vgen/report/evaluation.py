"""The page of one evaluation under a protocol: figures, generated beside real clips, nearest training clips."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vgen import __version__
from vgen.files import write_text
from vgen.report.markup import Markup, join, number, tag
from vgen.report.media import Media
from vgen.report.page import document
from vgen.report.read import flatten
from vgen.video.io import write_video


@dataclass(frozen=True)
class Shown:
    """A clip on the page.

    Args:
        video: (C, T, H, W) uint8.
        caption: Text below it.
    """

    video: Tensor
    caption: str


@dataclass(frozen=True)
class Pictures:
    """The clips of the page.

    Args:
        fps: Frames per second at which they are shown.
        generated: Some generated clips.
        real: Some real ones.
        neighbours: Generated clips, each with its nearest training clips behind it.
    """

    fps: float
    generated: Sequence[Shown] = ()
    real: Sequence[Shown] = ()
    neighbours: Sequence[Sequence[Shown]] = field(default=())


def write_evaluation(path: str | Path, record: Mapping[str, Any], pictures: Pictures, name: str) -> None:
    """Writes the page, in one step.

    Args:
        path: The file.
        record: `EvaluationRecord.to_dict()`.
        pictures: What is shown.
        name: What was evaluated.
    """
    write_text(path, render_evaluation(record, pictures, name))


def render_evaluation(record: Mapping[str, Any], pictures: Pictures, name: str) -> str:
    """The page as self-contained HTML; see `write_evaluation`."""
    media = Media()
    study = record.get("study")
    found = {
        "Figures": _figures(record),
        "Samples": _grids(pictures, media, record["settings"]["protocol"]["made"]),
        "Memorisation": _memorisation(study, pictures, media) if study else None,
        "Diversity": _diversity(study["diversity"]) if study else None,
        "Settings": _settings(record),
    }
    if media.left_out:
        found["Notes"] = tag("p", f"{len(media.left_out)} clips left out to keep the page small.", class_="card note")
    shown = {title: content for title, content in found.items() if content}
    title = f"{name} · {record['protocol']}"
    body = [
        tag(
            "header",
            tag("div", tag("span", "vgen", class_="brand"), tag("h1", title), class_="inner"),
            tag("nav", tag("div", [tag("a", each, href=f"#{each.lower()}") for each in shown], class_="inner")),
        ),
        tag("main", [tag("section", tag("h2", each), part, id=each.lower()) for each, part in shown.items()]),
        tag("footer", f"Written by vgen {__version__}."),
    ]
    return document(f"{title} · vgen evaluate", body)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    cells = [
        tag("tr", tag("th", row[0], scope="row"), [tag("td", cell, class_="value") for cell in row[1:]]) for row in rows
    ]
    header = tag("tr", [tag("th", text) for text in head])
    return tag("div", tag("table", tag("thead", header), tag("tbody", cells)), class_="scroll")


def _figures(record: Mapping[str, Any]) -> Markup:
    rows = []
    for key, metric in record["metrics"].items():
        interval = f"{number(metric['low'])} to {number(metric['high'])}" if "low" in metric else "–"
        floor = metric.get("floor")
        between = number(floor["value"]) if floor else "–"
        sets = [tag("span", floor["sets"], class_="below")] if floor else []
        detector = metric["detector"]
        network = f"{detector['name']} ({detector['kind']})"
        counts = f"{number(metric['n'])} / {number(metric['n_real'])}" if metric.get("n_real") else number(metric["n"])
        rows.append([key, tag("b", number(metric["value"])), interval, join(between, sets), counts, network])
    head = ("metric", "value", "95 % interval", "real against real", "n / n real", "detector")
    return tag("div", _table(head, rows), tag("p", record["note"], class_="note"), class_="card")


def _player(clip: Shown, fps: float, media: Media) -> Markup:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, clip.video, fps)
        video = media.embed(path.read_bytes(), clip.caption, clip.caption)
    return tag("figure", video, tag("figcaption", clip.caption), class_="clip")


def _grids(pictures: Pictures, media: Media, made: str) -> Markup | None:
    blocks, first = [], "Reconstructed" if made == "reconstructions" else "Generated"
    for title, clips in ((first, pictures.generated), ("Real", pictures.real)):
        if clips:
            cells = [_player(clip, pictures.fps, media) for clip in clips]
            blocks.append(tag("div", tag("h3", title), tag("div", cells, class_="videos"), class_="card"))
    return join(blocks) or None


def _memorisation(study: Mapping[str, Any], pictures: Pictures, media: Media) -> Markup:
    near = study["neighbours"]
    rows = [
        [name, *(number(near[name][key]) for key in ("n", "least", "quantile_5", "median"))]
        for name in ("generated", "reference")
    ]
    text = (
        f"Distance of each clip to the nearest of {near['training_clips']:,} training clips, in the features of "
        f"{study['detector']['name']} ({study['detector']['kind']}). The reference: {near['reference_is']}. "
        f"{near['share_closer_than_reference_5']:.1%} of the generated clips are closer to a training clip than the "
        "closest 5 % of the reference; where nothing is memorised, that is about 5 % or less."
    )
    table = _table(("clips", "n", "least", "5 % quantile", "median"), rows)
    strips = [
        tag("div", [_player(clip, pictures.fps, media) for clip in row], class_="videos") for row in pictures.neighbours
    ]
    rest = [tag("h4", "The closest generated clips, and behind each its nearest training clips"), *strips]
    return tag("div", tag("p", text), table, rest if strips else None, class_="card")


def _diversity(diversity: Mapping[str, Any]) -> Markup:
    rows = [[name, number(diversity[name])] for name in ("generated", "real", "ratio")]
    text = "Mean distance of two clips in the same features; a ratio well below 1 means that clips resemble each other."
    return tag("div", tag("p", text), _table(("clips", "mean distance"), rows), class_="card")


def _settings(record: Mapping[str, Any]) -> Markup:
    listed = [join(tag("dt", key), tag("dd", str(value))) for key, value in flatten(dict(record["settings"]))]
    return tag("div", tag("dl", listed), class_="card")
