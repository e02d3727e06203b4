"""Many clips in one picture: grids for sample videos."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def video_grid(clips: Tensor | Sequence[Tensor], columns: int | None = None, gap: int = 2, value: int = 255) -> Tensor:
    """Lays clips out in rows, left to right and top to bottom.

    Args:
        clips: (N, C, T, H, W) uint8, or N tensors (C, T, H, W) uint8 whose T, H and W may differ: shorter clips hold
            their last frame, smaller ones get a border of `value`; a grey clip (C = 1) beside colour is repeated.
        columns: Clips per row; None takes ceil(sqrt(N)).
        gap: Pixels between clips.
        value: Grey level (0..255) of gaps, borders and empty cells.

    Returns:
        (C, T, rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap) uint8.
    """
    cells = list(clips)
    if not cells:
        raise ValueError("video_grid needs at least one clip")
    for cell in cells:
        if cell.ndim != 4 or cell.dtype != torch.uint8:
            raise ValueError(f"expected clips (C, T, H, W) uint8, got {tuple(cell.shape)} {cell.dtype}")
    channels, frames, height, width = (max(cell.shape[d] for cell in cells) for d in range(4))
    columns = min(columns or math.ceil(math.sqrt(len(cells))), len(cells))
    rows = math.ceil(len(cells) / columns)
    grid = torch.full(
        (channels, frames, rows * (height + gap) - gap, columns * (width + gap) - gap), value, dtype=torch.uint8
    )
    for index, cell in enumerate(cells):
        hold = torch.arange(frames).clamp(max=cell.shape[1] - 1)
        padded = F.pad(cell.cpu()[:, hold], (0, width - cell.shape[3], 0, height - cell.shape[2]), value=value)
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        grid[:, :, top : top + height, left : left + width] = padded
    return grid
