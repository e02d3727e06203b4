"""Small line charts as SVG: drawn here, so that a report needs neither a plotting library nor the network."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from vgen.report.markup import Markup, number, tag
from vgen.report.read import Axis, Series

WIDTH, HEIGHT = 420, 232
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 30
_MOST_POINTS = 360  # more than the chart has pixels to show


@dataclass
class Line:
    """One curve: its name in the legend, its colour slot 0..7, whether it is dashed, and its points."""

    label: str
    colour: int
    dashed: bool
    series: Series


def smooth(values: list[float], reach: int) -> list[float]:
    """Mean with up to `reach` neighbours on each side, so that it does not lag; gaps (nan, inf) are passed over."""
    sums, counts = [0.0], [0]
    for value in values:
        finite = math.isfinite(value)
        sums.append(sums[-1] + (value if finite else 0.0))
        counts.append(counts[-1] + finite)
    result = []
    for i in range(len(values)):
        low, high = max(i - reach, 0), min(i + reach + 1, len(values))
        count = counts[high] - counts[low]
        result.append((sums[high] - sums[low]) / count if count else math.nan)
    return result


def thin(series: Series, most: int = _MOST_POINTS) -> Series:
    """Keeps at most `most` points: the lowest and the highest of every bucket, so that spikes stay visible."""
    count = len(series.steps)
    if count <= most:
        return series
    buckets = most // 2
    kept: list[int] = []
    for bucket in range(buckets):
        inside = range(bucket * count // buckets, (bucket + 1) * count // buckets)
        finite = [i for i in inside if math.isfinite(series.values[i])]
        if finite:
            kept += sorted({min(finite, key=series.values.__getitem__), max(finite, key=series.values.__getitem__)})
    return series.at(kept)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) inside [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    spacing = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / spacing - 1e-9)
    found = []
    while first * spacing <= high + spacing * 1e-9:
        found.append(round(first * spacing, 12))
        first += 1
    return found


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], with 2 and 5 between them where there are few."""
    found: list[float] = []
    for multiples in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**p for p in powers for m in multiples if low * 0.999 <= m * 10.0**p <= high * 1.001]
        if len(found) >= 3:
            break
    stride = math.ceil(len(found) / 6)
    return found[::stride] or [low]


def _compact(value: float) -> str:
    """An axis label of at most six characters: 1.5k, 20M, 0.003, 2e-05."""
    size = abs(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.3g}"


def _spread(lines: list[Line], log: bool) -> tuple[float, float] | None:
    """The range of the value axis; outliers of the first steps do not squeeze the rest of a linear one."""
    values = sorted(v for line in lines for v in line.series.values if math.isfinite(v) and (v > 0 or not log))
    if not values:
        return None
    low, high = values[0], values[-1]
    if log:
        return (low / 1.15, high * 1.15) if high > low else (low / 2, high * 2)
    if len(values) >= 50:
        typical = values[int(0.98 * (len(values) - 1))]
        if high - low > 4 * (typical - low) > 0:
            high = typical + 0.25 * (typical - low)
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _path(xs: list[float], ys: list[float | None]) -> str:
    parts, pen_down = [], False
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = True
    return "".join(parts)


@dataclass
class _Ruler:
    """The horizontal axis: which positions, in which unit, and the map to the chart's coordinate."""

    axis: Axis
    first: float
    last: float
    unit: str
    per_unit: float

    @classmethod
    def of(cls, lines: list[Line], axis: Axis) -> "_Ruler | None":
        """The ruler that all lines fit on; None where one of them has no position on this axis."""
        places = [line.series.along(axis) for line in lines]
        if not all(places):
            return None
        first, last = min(min(p) for p in places), max(max(p) for p in places)
        unit, per_unit = {"steps": ("step", 1.0), "clips": ("clips", 1.0)}.get(axis, ("s", 1.0))
        if axis == "seconds":
            unit, per_unit = ("h", 3600.0) if last >= 7200 else ("min", 60.0) if last >= 120 else ("s", 1.0)
        return cls(axis, first, last, unit, per_unit)

    def __call__(self, place: float) -> float:
        """The coordinate of a position."""
        share = (place - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def places(self, series: Series) -> list[float]:
        """Positions of a curve's points."""
        return series.along(self.axis)


def _read_out(lines: list[Line], ruler: _Ruler) -> str:
    """What the page's script shows under the pointer: name, colour and [x, place, value] of every curve, as JSON."""
    shown = []
    for line in lines:
        raw = thin(line.series)
        values = [float(f"{value:.4g}") if math.isfinite(value) else None for value in raw.values]
        places = ruler.places(raw)
        points = [[round(ruler(p)), round(p / ruler.per_unit, 2), v] for p, v in zip(places, values, strict=True)]
        shown.append([line.label, line.colour, points])
    return json.dumps(shown, separators=(",", ":"))


def _svg(lines: list[Line], log: bool, title: str, to_x: _Ruler) -> Markup | None:
    span = _spread(lines, log)
    if span is None:
        return None
    low, high = span

    def to_y(value: float) -> float | None:
        if not math.isfinite(value) or (log and value <= 0):
            return None
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)

    marks: list[Markup] = []
    for value in log_ticks(low, high) if log else ticks(low, high):
        y = to_y(value)
        if y is not None and low <= value <= high:
            marks.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}"))
            marks.append(tag("text", _compact(value), class_="tick", x=LEFT - 7, y=f"{y + 3.5:.1f}", text_anchor="end"))
    for place in ticks(to_x.first / to_x.per_unit, to_x.last / to_x.per_unit):
        x = to_x(place * to_x.per_unit)
        anchor = "end" if x > WIDTH - RIGHT - 14 else "middle"
        text = _compact(place) + (f" {to_x.unit}" if to_x.axis == "seconds" else "")
        marks.append(tag("text", text, class_="tick", x=f"{x:.1f}", y=HEIGHT - 12, text_anchor=anchor))
    drawn: list[Markup] = []
    for line in lines:
        raw = thin(line.series)
        look = f"line c{line.colour}" + (" dashed" if line.dashed else "")
        xs = [to_x(place) for place in to_x.places(raw)]
        points = [to_y(v) for v in raw.values]
        if len(line.series.values) >= 25:
            mean = smooth(line.series.values, reach=max(2, len(line.series.values) // 40))
            stride = math.ceil(len(mean) / _MOST_POINTS)
            at = sorted({*range(0, len(mean), stride), len(mean) - 1})
            places = to_x.places(line.series)
            smoothed = _path([to_x(places[i]) for i in at], [to_y(mean[i]) for i in at])
            drawn.append(tag("path", class_=f"{look} raw", d=_path(xs, points)))
            drawn.append(tag("path", class_=f"{look} smooth", d=smoothed))
        else:
            drawn.append(tag("path", class_=look, d=_path(xs, points)))
            dots = [(x, y) for x, y in zip(xs, points, strict=True) if y is not None]
            drawn += [tag("circle", class_=f"dot c{line.colour}", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.2) for x, y in dots]
    return tag(
        "svg",
        tag("title", title),
        marks,
        tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM),
        drawn,
        tag("line", class_="cursor", x1=0, x2=0, y1=TOP, y2=HEIGHT - BOTTOM),
        class_="log" if log else "linear",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )


def chart(title: str, lines: list[Line], axes: Sequence[Axis] = ("steps",)) -> Markup | None:
    """Draws one figure, with a linear and a logarithmic value axis of which the page shows one.

    Args:
        title: The metric's name.
        lines: Curves; empty ones are left out.
        axes: What the curves are drawn against; of several, the page shows one at a time.

    Returns:
        The figure, or None where there is nothing to draw.
    """
    lines = [line for line in lines if line.series.steps]
    values = [v for line in lines for v in line.series.values if math.isfinite(v)]
    if not values:
        return None
    # A logarithmic axis says nothing about values that reach zero, change their sign or hardly vary.
    with_log = min(values) > 0 and max(values) > 2 * min(values)
    drawn = []
    for axis in axes:
        ruler = _Ruler.of(lines, axis)
        if ruler is None:
            missing = tag("p", "not logged by all of these runs", class_="minor")
            drawn.append(tag("div", missing, class_=f"against on-{axis}"))
            continue
        pictures = [_svg(lines, log, title, ruler) for log in ((False, True) if with_log else (False,))]
        unit = {"data_hover": _read_out(lines, ruler), "data_unit": ruler.unit}
        drawn.append(tag("div", pictures, class_=f"against on-{axis}", **unit))
    legend = [
        tag("span", tag("i", class_=f"key c{line.colour}" + (" dashed" if line.dashed else "")), line.label)
        for line in lines
    ]
    last = number(lines[0].series.values[-1]) if len(lines) == 1 else None
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", legend, class_="legend"), tag("span", last, class_="last")),
        drawn,
        class_="chart" + ("" if with_log else " only-linear"),
    )
