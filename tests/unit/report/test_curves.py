import json
import math
import xml.etree.ElementTree as ElementTree

import pytest

from vgen.report.curves import Line, chart, log_ticks, smooth, thin, ticks
from vgen.report.read import Series


def line(values, label="train"):
    return Line(label, 0, False, Series([float(i) for i in range(len(values))], values))


def test_smooth_has_no_lag_and_skips_gaps():
    ramp = [float(i) for i in range(40)]
    assert smooth(ramp, 5)[5:-5] == pytest.approx(ramp[5:-5])
    assert smooth([1.0, math.nan, 3.0], 1)[1] == pytest.approx(2.0)
    assert math.isnan(smooth([math.nan], 3)[0])


def test_thin_keeps_spikes():
    values = [1.0] * 5000
    values[1234] = 50.0
    values[4321] = -50.0
    series = thin(line(values).series, 100)
    assert len(series.steps) <= 100
    assert max(series.values) == 50 and min(series.values) == -50
    assert series.steps == sorted(series.steps)


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 17), (1e-6, 2e-6), (0, 111600), (5, 5)])
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_log_ticks():
    assert log_ticks(0.01, 100) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert 2 <= len(log_ticks(0.3, 0.9)) <= 6


def test_chart_is_well_formed_and_has_both_axes():
    svg = chart("loss", [line([math.exp(-i / 20) for i in range(200)])])
    root = ElementTree.fromstring(svg)
    assert [child.get("class") for child in root.iter("svg")] == ["linear", "log"]
    assert "nan" not in svg


def test_against_steps_clips_and_time():
    lines = [
        Line(name, colour, False, Series([10, 20], [2.0, 1.0], [clips, 2 * clips], [60, 120]))
        for name, colour, clips in (("a", 0, 80), ("b", 1, 160))
    ]
    root = ElementTree.fromstring(chart("loss", lines, ("steps", "clips", "seconds")))
    shown = {div.get("class"): div for div in root.iter("div")}
    assert list(shown) == ["against on-steps", "against on-clips", "against on-seconds"]
    assert [div.get("data-unit") for div in shown.values()] == ["step", "clips", "min"]
    ends = {kind: [line[2][-1] for line in json.loads(div.get("data-hover"))] for kind, div in shown.items()}
    assert ends["against on-steps"] == [[410, 20, 1.0], [410, 20, 1.0]]
    assert ends["against on-clips"] == [[173, 160, 1.0], [410, 320, 1.0]], "one run has seen half as many clips"
    assert ends["against on-seconds"] == [[410, 2, 1.0], [410, 2, 1.0]]
    lines[1].series.clips.clear()
    assert "not logged by all of these runs" in chart("loss", lines, ("steps", "clips"))


def test_chart_without_a_logarithm_stays_linear():
    svg = chart("gain", [line([-1.0, 0.0, 2.0])])
    assert "only-linear" in svg and 'class="log"' not in svg


def test_degenerate_curves():
    assert chart("empty", [line([])]) is None
    assert chart("nothing finite", [line([math.nan, math.inf])]) is None
    for values in ([3.0], [0.0, 0.0], [1.0, math.nan, math.inf, 2.0], [1e300, -1e300], [1e-300, 1e-299]):
        svg = chart("odd", [line(values)])
        ElementTree.fromstring(svg)
