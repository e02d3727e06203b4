"""Grids of clips with a word over each column, for people to look at."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vgen.video.grid import video_grid

GAP = 4  # pixels between cells


def enlarge(clip: Tensor, side: int) -> Tensor:
    """Repeats the pixels of a clip (C, T, H, W) as often as keeps its longer side within `side`."""
    factor = max(1, side // max(clip.shape[-2:]))
    return clip.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def captioned_grid(clips: Sequence[Tensor], columns: int, captions: Sequence[str], side: int = 128) -> Tensor:
    """Lays clips out in rows under a line of captions.

    Args:
        clips: Clips (3 or 1, T, H, W) uint8 of one size, left to right and top to bottom.
        columns: Clips per row.
        captions: Text over each column; words that do not fit are cut. Empty: no line.
        side: Small clips are enlarged by a whole factor that keeps their longer side within this many pixels.

    Returns:
        (3, T, H', W') uint8.
    """
    cells = [enlarge(clip.expand(3, -1, -1, -1), side) for clip in clips]
    grid = video_grid(cells, columns=columns, gap=GAP)
    if not any(captions):
        return grid
    width, frames = cells[0].shape[-1], grid.shape[1]
    line = caption_line(captions, width, grid.shape[-1])
    return torch.cat([line[:, None].expand(-1, frames, -1, -1), grid], dim=2)


def caption_line(
    captions: Sequence[str], cell: int, width: int, left: int = 0, ink: int = 0, paper: int = 255
) -> Tensor:
    """(3, height, width) uint8 with each text in the middle of its column; what does not fit is cut.

    Args:
        captions: One text per column.
        cell: Width of a column; columns are `GAP` apart.
        width: Width of the line.
        left: Where the first column begins.
        ink: Grey level of the text.
        paper: Grey level behind it.
    """
    size = max(9, min(14, cell // 8))
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
    picture = Image.new("RGB", (width, size + 8), (paper,) * 3)
    draw = ImageDraw.Draw(picture)
    for column, text in enumerate(captions):
        while text and draw.textlength(text, font=font) > cell:
            text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
        start = left + column * (cell + GAP) + (cell - draw.textlength(text, font=font)) / 2
        draw.text((start, 3), text, fill=(ink,) * 3, font=font)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
