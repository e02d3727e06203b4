"""Figures, the colours of flow, and the keys to them."""

import math

import pytest
import torch

from vgen.video.fields import Field, flow_colours
from vgen.video.figure import PAPER, Layout, figure


def flow_of(x, y):
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("x", "y", "colour"),
    [
        (1, 0, (255, 0, 0)),
        (-1, 0, (0, 255, 255)),
        (0, -1, (128, 255, 0)),  # up
        (0, 1, (128, 0, 255)),  # down
        (0, 0, (255, 255, 255)),
        (0.5, 0, (255, 128, 128)),
        (9, 0, (255, 0, 0)),
        (math.nan, 0, (255, 255, 255)),
    ],
)
def test_colours_of_flow(x, y, colour):
    assert flow_colours(flow_of(x, y), 1.0).flatten().tolist() == pytest.approx(colour, abs=1)


@pytest.mark.parametrize(("largest", "scale"), [(0.2, 1), (1.5, 2), (3, 5), (7, 10), (14, 20)])
def test_the_scale_is_a_round_number_of_pixels(largest, scale):
    assert Field("flow", flow_of(largest, 0)).full_scale() == scale
    assert Field("share", torch.rand(1, 1, 1, 2, 2)).full_scale() == 1


def test_a_single_jump_does_not_darken_the_rest():
    flow = torch.full((1, 2, 10, 20, 20), 0.5)
    flow[0, 0, 0, 0, 0] = 1e6
    flow[0, 0, 0, 0, 1] = math.inf
    assert Field("flow", flow).full_scale() == 1


def test_shares_are_grey():
    values = torch.tensor([0.0, 0.5, 1.0, 2.0]).view(1, 1, 1, 1, 4)
    colours = Field("share", values).colour(1.0)
    assert colours.shape == (1, 3, 1, 1, 4) and colours[0, 0].flatten().tolist() == [0, 128, 255, 255]


def test_the_wheel_shows_its_own_colours():
    side = 100
    key = Field("flow", flow_of(4, 0)).legend(side, 5.0, ink=0, paper=255)
    assert key.shape == (3, side, side) and key.dtype == torch.uint8
    room = side - 13 - 6
    right, left = (key[:, room // 2, side // 2 + sign * room * 2 // 5] for sign in (1, -1))
    assert right[0] > 240 and right[1] < 90 and left[0] < 90 and left[1] > 240
    assert (key[:, room + 2 :] < 100).any(), "the scale is written below"


def test_cells_can_be_cut_out_again():
    clips = torch.randint(0, 255, (3, 3, 4, 16, 20), dtype=torch.uint8)
    small = torch.randint(0, 255, (2, 3, 2, 8, 10), dtype=torch.uint8)
    drawn, layout = figure({"real": list(clips), "flow": list(small)}, ["a", "a very long caption", ""], side=40)
    assert layout == Layout.from_dict(layout.to_dict())
    assert layout.cut(drawn, "real", 2).shape == (3, 4, 32, 40)
    for column in range(3):
        assert torch.equal(layout.cut(drawn, "real", column)[:, :, ::2, ::2], clips[column])
    flow = layout.cut(drawn, "flow", 1)
    assert torch.equal(flow[:, 0, ::4, ::4], small[1][:, 0]) and torch.equal(flow[:, 3], flow[:, 1]), "the last is held"
    assert (layout.cut(drawn, "flow", 2) == PAPER).all(), "a row may have fewer clips"
    assert (drawn[:, :, : layout.top, layout.left :] > 150).any() and (drawn[:, :, :, : layout.left] > 150).any()


def test_a_key_stands_under_the_name_of_its_row():
    clip = torch.zeros(3, 1, 64, 64, dtype=torch.uint8)
    with_key, layout = figure({"flow": [clip]}, keys={"flow": torch.full((3, 30, 30), 255, dtype=torch.uint8)})
    without, _ = figure({"flow": [clip]})
    assert (with_key[:, 0, :, : layout.left] == 255).sum() >= 3 * 30 * 30 > (without == 255).sum()
