"""Drawn standing people whose arms, legs and trunk perform an action; appearance belongs to the person alone.

Body coordinates: the picture's height is 2 (y down, -1 top), x has the same unit, the person stands at x = 0.
Hands follow way points that start and end hanging down, so the first frame does not know the action.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
Colour = tuple[int, int, int]
_SUPERSAMPLE = 3
# Where a hand can go, from its shoulder: x outwards (away from the body), y down. Arms are 0.54 long.
_PLACES = {
    "r": (0.08, 0.5), "o": (0.5, 0.0), "u": (0.12, -0.5), "a": (-0.42, 0.06), "f": (-0.08, 0.12), "h": (0.36, -0.36),
    "l": (0.36, 0.36), "t": (-0.05, -0.34), "b": (-0.2, 0.34), "x": (-0.36, -0.36),
}  # fmt: skip


@dataclass(frozen=True)
class Action:
    """Way points of the right hand, of the left hand, and of the body.

    Body letters: c crouch and rise, d crouch and stay, j jog, w walk aside, s lean aside, g lunge.
    """

    right: str = ""
    left: str = ""
    body: str = ""


MHAD_ACTIONS = (
    Action("oa"), Action("ao"), Action("hththt"), Action("ofof", "ofof"), Action("tol"), Action("aa", "aa"),
    Action("bu", "bu", "c"), Action("hbxl"), Action("uolbu"), Action("ublou"), Action("ulbu"), Action("lb", "", "s"),
    Action("fofo", "ofof"), Action("oa", "ax", "s"), Action("oxa", "", "s"), Action("lflf", "lflf"),
    Action("tul", "u"), Action("fofo", "fofo"), Action("hfhfhf"), Action("of", "of"), Action("bto", "", "c"),
    Action("flflfl", "lflflf", "j"), Action("bl", "lb", "w"), Action("", "", "c"), Action("", "", "d"),
    Action("", "", "g"), Action("ff", "ff", "c"),
)  # fmt: skip
NATOPS_ACTIONS = (
    Action("uu"), Action("u", "l"), Action("uf", "uf"), Action("fo", "fo"), Action("of", "of"), Action("fb", "a"),
    Action("bu", "f"), Action("ub", "f"), Action("bo", "bo"), Action("lblb", "lblb"), Action("blbl", "oo"),
    Action("ftft", "ftft"), Action("oo", "ftft"), Action("ftft", "oo"), Action("oh", "aa"), Action("olol", "olol"),
    Action("xx", "xx"), Action("f", "oaoa"), Action("", "hththt"), Action("h", "h"), Action("hfh", "hfh"),
    Action("ob", "ob"), Action("ulul", "b"), Action("xaxo"),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """Appearance of one person and of the room behind."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    wall: Colour
    floor: Colour
    build: float
    height: float

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Person":
        """Draws a person."""

        def colour(low: int, high: int) -> Colour:
            red, green, blue = (int(v) for v in rng.integers(low, high, 3))
            return red, green, blue

        tone = rng.uniform(0.35, 1.0)
        return cls(
            skin=(int(240 * tone), int(196 * tone), int(160 * tone)),
            hair=colour(15, 120),
            shirt=colour(30, 250),
            trousers=colour(20, 140),
            wall=colour(120, 240),
            floor=colour(60, 160),
            build=rng.uniform(0.85, 1.2),
            height=rng.uniform(0.92, 1.06),
        )


def perform(
    person: Person, action: Action, frames: int, width: int, height: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draws one performance; speed and reach differ a little from take to take.

    Returns:
        (frames, height, width, 3) uint8.
    """
    reach, delay, lag = rng.uniform(0.85, 1.0), rng.uniform(0.0, 0.08), rng.uniform(0.0, 0.06)
    time = np.clip((np.linspace(0, 1, frames) - delay) / (1 - delay - lag), 0, 1)
    right, left = _path(action.right, time) * [-reach, reach], _path(action.left, time) * reach
    arc = np.sin(np.pi * time)
    body = {
        "crouch": {"c": arc, "d": _ease(time)}.get(action.body, 0 * time),
        "x": {"w": 0.25 * np.sin(2 * np.pi * time), "g": 0.16 * arc}.get(action.body, 0 * time),
        "lean": {"s": 0.3 * arc, "g": 0.15 * arc}.get(action.body, 0 * time),
        "run": {"j": np.sin(8 * np.pi * time), "w": 0.6 * np.sin(6 * np.pi * time)}.get(action.body, 0 * time) * arc,
        "spread": {"g": arc}.get(action.body, 0 * time),
    }
    start = np.array([rng.uniform(-0.04, 0.04), rng.uniform(-0.02, 0.02)])
    pictures = [
        _draw(person, right[t], left[t], {k: float(v[t]) for k, v in body.items()}, start, width, height)
        for t in range(frames)
    ]
    return np.stack(pictures)


def _path(places: str, time: Points) -> Points:
    stops = np.array([_PLACES[p] for p in f"r{places}r"])
    position = time * (len(stops) - 1)
    index = np.minimum(position.astype(int), len(stops) - 2)
    weight = _ease(position - index)[:, None]
    path: Points = stops[index] * (1 - weight) + stops[index + 1] * weight
    return path


def _ease(x: Points) -> Points:
    eased: Points = (1 - np.cos(np.pi * np.clip(x, 0, 1))) / 2
    return eased


def _draw(
    person: Person, right: Points, left: Points, body: dict[str, float], start: Points, width: int, height: int
) -> NDArray[np.uint8]:
    w, h = width * _SUPERSAMPLE, height * _SUPERSAMPLE
    image = Image.new("RGB", (w, h), person.wall)
    pen = ImageDraw.Draw(image)
    pen.rectangle([0, int(h * 0.8), w, h], fill=person.floor)
    unit = h / 2

    def at(point: Points) -> tuple[float, float]:
        return float(w / 2 + point[0] * unit), float((point[1] + 1) * unit)

    def limb(points: list[Points], thickness: float, colour: Colour) -> None:
        pen.line([at(p) for p in points], fill=colour, width=max(1, int(thickness * unit)), joint="curve")
        for point in (points[0], points[-1]):
            disc(point, thickness / 2, colour)

    def disc(point: Points, radius: float, colour: Colour, squeeze: float = 1.0) -> None:
        x, y = at(point)
        pen.ellipse(
            [x - radius * squeeze * unit, y - radius * unit, x + radius * squeeze * unit, y + radius * unit],
            fill=colour,
        )

    tall = person.height
    foot = 0.88 + start[1]
    hip = np.array([start[0] + body["x"], foot - (0.72 - 0.3 * body["crouch"] - 0.12 * body["spread"]) * tall])
    up = np.array([np.sin(body["lean"]), -np.cos(body["lean"])])
    neck = hip + 0.58 * tall * up
    across = np.array([-up[1], up[0]])
    for sign in (-1, 1):
        reach = sign * (0.13 + 0.22 * body["spread"])
        lift = 0.16 * max(sign * body["run"], 0.0)
        ankle = np.array([start[0] + body["x"] + reach, foot - lift])
        top = hip + sign * 0.07 * person.build * across
        knee = (top + ankle) / 2 + np.array([sign * (0.04 + 0.14 * body["crouch"]), -0.3 * lift])
        limb([top, knee, ankle], 0.12 * person.build, person.trousers)
    limb([hip, neck + 0.06 * (hip - neck)], 0.27 * person.build, person.shirt)
    head = neck + 0.15 * up
    disc(head + 0.03 * up, 0.125, person.hair, 0.9)
    disc(head - 0.01 * up, 0.105, person.skin, 0.85)
    for sign, hand in ((-1, right), (1, left)):
        shoulder = neck - 0.06 * up + sign * 0.16 * person.build * across
        elbow, end = _bend(hand * tall, sign)
        limb([shoulder, shoulder + elbow, shoulder + end], 0.085 * person.build, person.shirt)
        disc(shoulder + end, 0.06, person.skin)
    return np.asarray(image.reduce(_SUPERSAMPLE))


def _bend(hand: Points, sign: int) -> tuple[Points, Points]:
    """Elbow and hand of an arm of two parts of 0.27 each that reaches for `hand`."""
    part = 0.27
    distance = max(float(np.hypot(*hand)), 1e-3)
    end = hand * min(1.0, 2 * part * 0.999 / distance)
    distance = min(distance, 2 * part * 0.999)
    away = np.array([-end[1], end[0]]) / distance
    away = away if away[0] * sign + 0.4 * away[1] > 0 else -away
    elbow: Points = end / 2 + away * np.sqrt(part**2 - (distance / 2) ** 2)
    return elbow, end
