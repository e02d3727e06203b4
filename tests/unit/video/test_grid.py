"""Grids of clips."""

import pytest
import torch

from vgen.video.grid import video_grid


def test_cells_stand_in_reading_order() -> None:
    clips = torch.stack([torch.full((3, 2, 4, 6), 10 * (i + 1), dtype=torch.uint8) for i in range(5)])
    grid = video_grid(clips, columns=3, gap=1, value=0)
    assert grid.shape == (3, 2, 2 * 4 + 1, 3 * 6 + 2)
    assert [int(grid[0, 0, 0, x]) for x in (0, 6, 7, 14)] == [10, 0, 20, 30]
    assert [int(grid[0, 1, 5, x]) for x in (0, 7, 14)] == [40, 50, 0]
    assert not grid[:, :, 4].any()


def test_clips_of_other_sizes_are_filled_up() -> None:
    long, short = torch.zeros(3, 4, 4, 4, dtype=torch.uint8), torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    short[:, 1] = 9
    grid = video_grid([long, short], columns=2, gap=0, value=7)
    assert grid.shape == (3, 4, 4, 8)
    assert grid[:, 3, :2, 4:6].eq(9).all()  # last frame held, grey repeated
    assert grid[:, :, 2:, 4:].eq(7).all()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        video_grid([])
    with pytest.raises(ValueError, match="uint8"):
        video_grid(torch.zeros(1, 3, 2, 4, 4))
