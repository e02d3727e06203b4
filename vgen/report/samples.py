"""The videos of a run: what it generated, the newest figure of every stage, and film strips over training."""

from collections.abc import Sequence

from vgen.report.film import film_strip
from vgen.report.markup import Markup, join, tag
from vgen.report.media import Media
from vgen.report.read import Clip, Run, Stage
from vgen.report.sections import side_by_side

_GENERATED_SHOWN = 24
_CLIP_KINDS = {"sample": "samples", "recon": "reconstructions", "reconstruction": "reconstructions"}


def _wide(video: Markup, caption: str | None, width: int | None = None) -> Markup:
    """A video over the full width; where the screen is too narrow for its columns, it is moved sideways instead.

    Args:
        video: The player.
        caption: Text below it.
        width: Pixels that it has itself, beyond which it is not enlarged; None: it fills the page.
    """
    below = tag("figcaption", caption) if caption else None
    style = f"--own-width:{width}px" if width else None
    # Who moves by keyboard can scroll it too.
    reach = {"tabindex": 0, "role": "group", "aria_label": "video, scrolls sideways"}
    frame = tag("div", video, class_="wide own" if width else "wide", style=style, **reach)
    return tag("figure", frame, below, class_="clip overview")


def _generated_of(run: Run, media: Media) -> Markup:
    """The grid of all generated videos, then the single ones."""
    grids = [clip for clip in run.generated if clip.kind == "grid"]
    single = [clip for clip in run.generated if clip.kind != "grid"]
    overview = [_wide(media.video(clip.path, "all generated videos"), clip.rows) for clip in grids]
    cells = [
        tag(
            "figure",
            media.video(clip.path, f"generated: {clip.path.stem}"),
            tag("figcaption", " · ".join(clip.captions) or clip.path.stem.replace("_", " ")),
            class_="clip",
        )
        for clip in single[:_GENERATED_SHOWN]
    ]
    more = len(single) - len(cells)
    note = tag("p", f"{more} more in {run.folder.name}/generated", class_="minor") if more else None
    return tag("div", tag("h3", "Generated videos"), overview, tag("div", cells, class_="videos"), note, class_="card")


def _captions(captions: Sequence[str]) -> Markup | None:
    if not captions:
        return None
    if len(captions) == 1:
        return tag("p", captions[0], class_="caption")
    return tag("ol", [tag("li", text) for text in captions], class_="captions")


def _training_of(stage: Stage, kind: str, clips: list[Clip], media: Media, film: bool) -> Markup:
    """The newest figure of a stage, and how its clips came to be what they are."""
    newest = clips[-1]
    what = f"{stage.name} · {_CLIP_KINDS.get(kind, kind)}"
    when = f"step {newest.step:,}" if newest.step is not None else ""
    video = media.video(newest.path, f"{what}, {when}")
    below = " · ".join(text for text in (when, newest.rows) if text)
    parts = [_wide(video, below, newest.width), _captions(newest.captions) if newest.layout is None else None]
    strip = film_strip(clips) if film else None
    if strip is not None:
        label = f"{what} over training, from {strip.steps[0]:,} to {strip.steps[-1]:,} steps"
        parts.append(tag("h4", "Over training"))
        parts.append(
            _wide(
                media.embed(strip.data, f"{stage.name}: film strip", label), "same noise, same condition", strip.width
            )
        )
    return tag("div", tag("h3", what), parts, class_="card")


def _blocks_of(run: Run, media: Media, film: bool) -> dict[tuple[str, str], Markup]:
    """What there is to see of a run, by stage and kind."""
    blocks = {("", "generated"): _generated_of(run, media)} if run.generated else {}
    for stage in reversed(run.stages):  # the last stage is what a reader came for
        kinds: dict[str, list[Clip]] = {}
        for clip in stage.clips:
            kinds.setdefault(clip.kind, []).append(clip)
        for kind, clips in kinds.items():
            blocks[stage.name, kind] = _training_of(stage, kind, clips, media, film)
    return blocks


def samples(runs: Sequence[Run], media: Media) -> Markup | None:
    """Generated videos, and the figures that each stage made during training; of several runs, like beside like."""
    # Side by side there is no room for strips of several steps.
    found = [_blocks_of(run, media, film=len(runs) == 1) for run in runs]
    keys = dict.fromkeys(key for blocks in found for key in blocks)
    return join([side_by_side(runs, [blocks.get(key) for blocks in found]) for key in keys]) or None
