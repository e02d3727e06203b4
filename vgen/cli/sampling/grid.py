"""All clips of a call in one video."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vgen.cli.sampling.clips import Clip
from vgen.cli.sampling.pieces import PieceStore
from vgen.cli.trained import Trained
from vgen.files import write_json
from vgen.video import to_uint8
from vgen.video.captions import captioned_grid
from vgen.video.io import video_writer, write_gif

_COLUMNS = 8  # clips beside each other


def write_grid(args: argparse.Namespace, trained: Trained, clips: Sequence[Clip], store: PieceStore, out: Path) -> None:
    """Writes grid.mp4 (and .gif): a row for each picture, which stands still in the first column.

    The clips are read piece by piece; a GIF needs them as a whole.
    """
    fps = float(trained.model.clip_spec.fps)
    with video_writer(out / "grid.mp4", fps, upscale_to=0) as append:
        for piece in _pieces(clips, store):
            append(piece)
    if args.gif:
        write_gif(out / "grid.gif", torch.cat(list(_pieces(clips, store)), dim=1), fps, upscale_to=0)
    record = {
        "kind": "grid",
        "captions": [clip.word for clip in clips if clip.word],
        "rows": "each row begins with the given picture" if clips[0].picture is not None else "",
        "fps": fps,
        "files": [clip.name for clip in clips],
        "clips": [clip.facts(fps) for clip in clips],
        "model": {
            "class": type(trained.model).__name__,
            "weights": trained.weights,
            "step": trained.file.header.get("step"),
        },
        "options": args.option,
    }
    write_json(out / "grid.json", record)


def _pieces(clips: Sequence[Clip], store: PieceStore) -> Iterator[Tensor]:
    """Pieces (3, t, H', W') uint8 of the grid."""
    words = {clip.word for clip in clips}
    # Columns are words; with one word, seeds. A longer row is broken.
    unit = len(words) if len(words) > 1 else len({clip.seed for clip in clips})
    wide = min(unit, _COLUMNS)
    pictures = clips[0].picture is not None
    heads = [clip.word or "" for clip in clips[:wide]] if unit == wide else []
    captions = ["given", *heads] if any(heads) and pictures else heads
    for number in range(store.noted(clips[0].name)[0]):
        cells: list[Tensor] = []
        for start in range(0, len(clips), unit):
            for first in range(start, start + unit, wide):
                row = [store.read(clip.name, number) for clip in clips[first : min(first + wide, start + unit)]]
                if (picture := clips[first].picture) is not None:
                    still = picture.pixels if picture.pixels.ndim == 3 else picture.pixels[:, -1]
                    cells.append(to_uint8(still)[:, None].expand_as(row[0]))
                cells += row
                cells += [row[0].new_full(row[0].shape, 255)] * (wide - len(row))
        yield captioned_grid(cells, wide + pictures, captions)
