"""Film strips: the same clips at successive steps of a training, side by side."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vgen.errors import UserError
from vgen.report.read import Clip

_MOST_STEPS = 6
_MOST_CLIPS = 4
_SHOWN = ("generated", "reconstructed")  # the row that training changes, the first that a figure has


@dataclass
class FilmStrip:
    """An mp4 with a row per clip and a column per step, the steps, and its width in pixels."""

    data: bytes
    steps: list[int]
    width: int


def _evenly(clips: Sequence[Clip], count: int) -> list[Clip]:
    if len(clips) <= count:
        return list(clips)
    return [clips[round(i * (len(clips) - 1) / (count - 1))] for i in range(count)]


def film_strip(clips: Sequence[Clip]) -> FilmStrip | None:
    """Cuts the clips out of a stage's figures and lays them out over the steps, between the given and the real one.

    Figures that say nothing of their layout, have another one than the newest, or cannot be read are left out.

    Args:
        clips: Figures of one kind in order of their steps.

    Returns:
        The strip; None where fewer than two steps are left.
    """
    newest = clips[-1]
    usable = [clip for clip in clips if clip.layout == newest.layout and clip.step is not None]
    if newest.layout is None or len(usable) < 2:
        return None
    # Torch comes with these: only where there is something to cut.
    import torch

    from vgen.video.figure import Layout, figure
    from vgen.video.io import read_frames, write_video

    try:
        layout = Layout.from_dict(newest.layout)
    except (TypeError, ValueError):
        return None
    row = next((name for name in _SHOWN if name in layout.rows), None)
    sheets: dict[int, torch.Tensor] = {}
    for clip in _evenly(usable, _MOST_STEPS):
        try:
            sheets[int(clip.step or 0)] = torch.from_numpy(read_frames(clip.path)).permute(3, 0, 1, 2)
        except UserError:  # torn by a crash; the page names it where it shows the figure
            continue
    if row is None or len(sheets) < 2:
        return None
    # What each column shows: a caption, the figure that it is cut from, and the row there.
    last = sheets[max(sheets)]
    columns = [(f"step {step:,}", sheet, row) for step, sheet in sorted(sheets.items())]
    columns = [("given", last, "given")] * ("given" in layout.rows) + columns
    columns += [("real", last, "real")] * ("real" in layout.rows)
    shown = {}
    for place in range(min(layout.columns, _MOST_CLIPS)):
        caption = newest.captions[place] if place < len(newest.captions) else ""
        shown[f"{place + 1} {caption}"] = [layout.cut(sheet, name, place) for _, sheet, name in columns]
    drawn, _ = figure(shown, [text for text, _, _ in columns], side=layout.width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.mp4"
        write_video(path, drawn, newest.fps, upscale_to=0)
        return FilmStrip(path.read_bytes(), sorted(sheets), drawn.shape[-1])
