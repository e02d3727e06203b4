"""Clips for the page of an evaluation: generated and real ones, and the nearest training clips."""

from collections.abc import Sequence

from vgen.metrics.passes import FeaturePasses, Set
from vgen.metrics.reading import ClipReader
from vgen.metrics.selection import ClipRef
from vgen.metrics.study import Compared, Study
from vgen.report.evaluation import Pictures, Shown

_FPS = 8.0  # of clips whose rate nothing says


def pictures(compared: Compared, study: Study | None, count: int, closest: int) -> Pictures:
    """Reads what the page shows.

    Args:
        compared: From the comparison.
        study: Neighbours, where they were looked at.
        count: Clips of each side, spread over the list.
        closest: Generated clips that are shown beside their neighbours, the closest first.
    """
    passes = compared.passes
    fps = passes.sources["real"].settings.get("fps", _FPS)
    sides: dict[Set, list[Shown]] = {}
    for side in ("generated", "real"):
        reader, clips = passes.readers[side], compared.clips[side]  # type: ignore[index]
        chosen = range(0, len(clips), max(len(clips) // count, 1))[:count]
        sides[side] = [_shown(reader, clips[number]) for number in chosen]  # type: ignore[index]
    rows = [] if study is None else _neighbours(passes, compared.clips["generated"], study, closest)
    return Pictures(float(fps), sides["generated"], sides["real"], rows)


def _neighbours(passes: FeaturePasses, generated: Sequence[ClipRef], study: Study, closest: int) -> list[list[Shown]]:
    training = ClipReader(study.training, passes.quantise, "training")
    rows = []
    for place in study.distances[:, 0].argsort()[:closest].tolist():
        row = [_shown(passes.readers["generated"], generated[place], "generated ")]
        for number, distance in zip(study.neighbours[place].tolist(), study.distances[place].tolist(), strict=True):
            row.append(_shown(training, study.training_clips[number], f"{distance:.3g}: "))
        rows.append(row)
    return rows


def _shown(reader: ClipReader, clip: ClipRef, before: str = "") -> Shown:
    pixels = reader.read(clip).round().to("cpu")
    return Shown(pixels.byte(), f"{before}{reader.ids[clip.video]}")
