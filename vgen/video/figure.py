"""Figures of clips for training samples: named rows, a caption over each column, keys to the colours."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from vgen.video.captions import GAP, caption_line, enlarge
from vgen.video.grid import video_grid

# Dark, so that it is no glaring sheet on a dark page; the report's light page frames it like a player.
PAPER, INK = 24, 214
_LABEL_WIDTH = 104


@dataclass(frozen=True)
class Layout:
    """Where the clips of a figure lie, so that they can be cut out of it again.

    Args:
        rows: Names of the rows from top to bottom.
        columns: Number of columns.
        top: Pixels above the first row.
        left: Pixels left of the first column.
        height: Height of a cell.
        width: Width of a cell.
        gap: Pixels between cells.
    """

    rows: tuple[str, ...]
    columns: int
    top: int
    left: int
    height: int
    width: int
    gap: int = GAP

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"rows": list(self.rows)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Layout":
        """The inverse of `to_dict`.

        Raises:
            TypeError, ValueError: When it is not what `to_dict` wrote.
        """
        numbers = {key: int(value) for key, value in data.items() if key != "rows"}
        return cls(rows=tuple(str(row) for row in data.get("rows", ())), **numbers)

    def cut(self, figure: Tensor, row: str, column: int) -> Tensor:
        """The clip (C, T, height, width) at a place of a figure (C, T, H, W)."""
        top = self.top + self.rows.index(row) * (self.height + self.gap)
        left = self.left + column * (self.width + self.gap)
        return figure[:, :, top : top + self.height, left : left + self.width]


def figure(
    rows: Mapping[str, Sequence[Tensor]],
    captions: Sequence[str] = (),
    keys: Mapping[str, Tensor] | None = None,
    side: int = 128,
) -> tuple[Tensor, Layout]:
    """Draws a figure.

    Args:
        rows: Clips (3 or 1, T, h, w) uint8 of each named row. Those of the first row decide the size of a cell; smaller
            ones are enlarged to it, shorter ones hold their last frame.
        captions: Text over each column; empty: no line.
        keys: A picture (3, k, k) uint8 under the name of a row, such as a colour wheel.
        side: Small clips are enlarged by the largest whole factor that keeps their longer side within this many
            pixels: video codecs smear pictures of a few dozen pixels.

    Returns:
        The figure (3, T, H, W) uint8 and where its cells lie.
    """
    names = list(rows)
    columns = max(len(clips) for clips in rows.values())
    first = enlarge(rows[names[0]][0], side)
    height, width = first.shape[-2:]
    empty = torch.full((3, 1, height, width), PAPER, dtype=torch.uint8)
    cells = []
    for clips in rows.values():
        # grey ones become colour, as labels and keys are
        cells += [_fit(clip.expand(3, -1, -1, -1), height, width) for clip in clips] + [empty] * (columns - len(clips))
    grid = video_grid(cells, columns=columns, gap=GAP, value=PAPER)
    labels = [_label(name, (keys or {}).get(name), height) for name in names]
    sheet = video_grid([label[:, None] for label in labels], columns=1, gap=GAP, value=PAPER)
    frames = grid.shape[1]
    drawn = torch.cat([sheet.expand(-1, frames, -1, -1), grid], dim=3)
    top = 0
    if any(captions):
        line = caption_line(captions[:columns], width, drawn.shape[-1], _LABEL_WIDTH, INK, PAPER)
        drawn = torch.cat([line[:, None].expand(-1, frames, -1, -1), drawn], dim=2)
        top = line.shape[1]
    return drawn, Layout(tuple(names), columns, top, _LABEL_WIDTH, height, width)


def _fit(clip: Tensor, height: int, width: int) -> Tensor:
    if clip.shape[-2:] == (height, width):
        return clip
    return F.interpolate(clip.float().transpose(0, 1), (height, width), mode="nearest").transpose(0, 1).to(torch.uint8)


def _label(text: str, key: Tensor | None, height: int) -> Tensor:
    """(3, height, _LABEL_WIDTH) uint8: the row's name, and the key to its colours below."""
    size = min(13, max(9, height // 6))
    picture = Image.new("RGB", (_LABEL_WIDTH, height), (PAPER,) * 3)
    draw, font = ImageDraw.Draw(picture), cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
    right = _LABEL_WIDTH - 10
    used = size + 6 + (key.shape[-1] if key is not None else 0)
    top = max((height - used) // 2, 0)
    draw.text((right - draw.textlength(text, font=font), top), text, fill=(INK,) * 3, font=font)
    if key is not None:
        picture.paste(Image.fromarray(key.permute(1, 2, 0).numpy()), (right - key.shape[-1], top + size + 6))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
