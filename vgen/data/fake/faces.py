"""Drawn faces: identity decides appearance, an expression decides motion.

Face coordinates are [-1, 1] across the picture, x to the right and y down, as in `grid_sample`. Every part is a filled
polygon whose points are moved by the head's pose, drawn several times too large and averaged down (antialiasing).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
Colour = tuple[int, int, int]
_Place = Callable[..., Points]
_Fill = Callable[..., Points]
_SUPERSAMPLE = 4
_ANGLES = np.linspace(0, 2 * np.pi, 40, endpoint=False)

# Peak of every motion channel per class, reached at the apex. Head: shifts in [-1, 1] coordinates (y down), roll in
# radians, `scale` relative. Face: `open` and `curve` (smile > 0) of the mouth, `wide` its relative width, `lids` change
# of the eyes' opening (-1: shut), `brow` upwards, `frown` brows drawn together and down (negative: inner ends up).
EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "anger": {"scale": 0.16, "y": 0.03, "open": 0.06, "curve": -0.13, "wide": -0.2, "lids": -0.5, "frown": 0.16,
              "brow": -0.06},
    "disgust": {"x": -0.2, "yaw": -1.0, "open": 0.03, "curve": -0.09, "wide": 0.1, "lids": -0.85, "brow": -0.05,
                "frown": 0.06, "skew": 0.09},
    "fear": {"roll": -0.19, "scale": -0.12, "open": 0.12, "curve": -0.05, "wide": 0.35, "lids": 0.45, "brow": 0.09,
             "frown": -0.14},
    "happiness": {"roll": 0.19, "open": 0.09, "curve": 0.16, "wide": 0.4, "lids": -0.45, "brow": 0.03},
    "neutral": {"sway": 0.16, "blink": 1.0},
    "sadness": {"y": 0.15, "pitch": 0.7, "open": 0.0, "curve": -0.15, "wide": -0.05, "lids": -0.6, "frown": -0.17,
                "brow": 0.02},
    "surprise": {"y": -0.15, "pitch": -0.7, "open": 0.2, "curve": 0.0, "wide": -0.25, "lids": 0.5, "brow": 0.14},
}  # fmt: skip


@dataclass(frozen=True)
class Face:
    """Appearance of one person (constant over all of the person's clips) and of the room behind."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    shirt: Colour
    wall: Colour
    wall2: Colour
    pattern: int
    hairstyle: int
    glasses: int
    width: float
    height: float
    jaw: float
    eye_gap: float
    eye_size: float
    mouth_width: float
    nose: float
    light: int
    room: int = field(default=0)

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Face":
        """Draws a person."""
        tones = np.array([[250, 215, 190], [232, 184, 148], [198, 142, 102], [141, 92, 62], [96, 62, 44]], float)
        tone = rng.uniform(0, len(tones) - 1.001)
        low = int(tone)
        skin = tones[low] + (tone - low) * (tones[low + 1] - tones[low]) + rng.uniform(-8, 8, 3)
        hairs = np.array([[28, 22, 20], [82, 48, 26], [150, 92, 40], [222, 184, 104], [168, 60, 28], [150, 150, 156]])
        irises = np.array([[60, 110, 190], [50, 140, 80], [110, 66, 30], [40, 30, 26], [110, 130, 140]])
        hue = rng.uniform(0, 1, 3)
        return cls(
            skin=_colour(skin),
            hair=_colour(hairs[rng.integers(len(hairs))] + rng.uniform(-12, 12, 3)),
            iris=_colour(irises[rng.integers(len(irises))] + rng.uniform(-10, 10, 3)),
            # Lips stay visible on every skin: brighter on dark ones.
            lips=_colour(np.array([186, 46, 60] if tone < 2.4 else [226, 96, 112]) + rng.uniform(-26, 26, 3)),
            shirt=_colour(_hsv(hue[0], rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.95))),
            wall=_colour(_hsv(hue[1], rng.uniform(0.2, 0.7), rng.uniform(0.35, 0.95))),
            wall2=_colour(_hsv(hue[1] + rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.9))),
            pattern=int(rng.integers(4)),
            hairstyle=int(rng.integers(4)),
            glasses=int(rng.integers(1, 3)) if rng.random() < 0.25 else 0,
            width=rng.uniform(0.5, 0.58),
            height=rng.uniform(0.62, 0.7),
            jaw=rng.uniform(0.75, 1.0),
            eye_gap=rng.uniform(0.225, 0.265),
            eye_size=rng.uniform(0.92, 1.1),
            mouth_width=rng.uniform(0.25, 0.31),
            nose=rng.uniform(0.8, 1.2),
            light=int(rng.choice([-1, 1])),
            room=int(rng.integers(1 << 30)),
        )


def motion(
    peaks: Mapping[str, float], frames: int, rng: np.random.Generator, jitter: float = 0.2
) -> dict[str, NDArray[np.float64]]:
    """The course of every motion channel over one clip.

    Onset, apex and (in about half of the clips) partial offset, each smooth; every channel's peak differs by up to
    `jitter` between takes. All channels start at exactly 0: the first frame does not know the class.

    Returns:
        Channel name to (frames,) values.
    """
    time = np.linspace(0, 1, frames)
    start, rise = rng.uniform(0.0, 0.08), rng.uniform(0.4, 0.6)
    level = _smooth((time - start) / rise)
    if rng.random() < 0.5:
        level = level - rng.uniform(0.3, 0.6) * _smooth((time - rng.uniform(0.75, 0.8)) / 0.22)
    speed, blink_at = rng.uniform(0.9, 1.1), rng.uniform(0.45, 0.6)
    course = {name: peak * rng.uniform(1 - jitter, 1 + jitter) * level for name, peak in peaks.items()}
    gone = np.zeros(frames)
    # "neutral" moves too, so that all seven classes can be read: one gentle sway to both sides, and a blink.
    sway = course.pop("sway", gone) * np.sin(2 * np.pi * speed * time)
    course["x"] = course.get("x", gone) + sway
    blink = course.pop("blink", gone) * np.exp(-(((time - blink_at) / 0.1) ** 2))
    course["lids"] = course.get("lids", gone) - 0.95 * blink * level
    return course


class Portrait:
    """Draws one person in one room.

    Args:
        face: The person.
        size: Side of the square picture in pixels.
    """

    def __init__(self, face: Face, size: int) -> None:
        self.face, self.size = face, size
        self.side = size * _SUPERSAMPLE
        self._room = self._draw_room()

    def draw(self, pose: Mapping[str, float]) -> tuple[NDArray[np.uint8], dict[str, list[float]]]:
        """Draws one frame.

        Args:
            pose: Channel values of `EXPRESSIONS` (absent ones are 0).

        Returns:
            Picture (size, size, 3) uint8, and boxes [x0, y0, x1, y1] in pixels of `mouth`, `left_eye`, `right_eye`
            (left and right as seen in the picture) at their moved position.
        """
        face, get = self.face, lambda name: float(pose.get(name, 0.0))
        image = self._room.copy()
        pen = ImageDraw.Draw(image)
        yaw, pitch = get("yaw"), get("pitch")
        turn, lean = np.array([get("x"), get("y")]), get("roll")
        cos, sin = np.cos(lean), np.sin(lean)
        rotation = (1 + get("scale")) * np.array([[cos, sin], [-sin, cos]])

        def place(points: Points, depth: float = 0.0) -> Points:
            # A turned head shows as nearer parts moving further: parallax by depth stands for yaw and pitch.
            shifted = points + depth * np.array([0.1 * yaw, 0.09 * pitch])
            moved: Points = (shifted @ rotation + turn + np.array([0.0, -0.02]) + 1) * (self.side / 2)
            return moved

        def fill(points: Points, colour: Colour, depth: float = 0.0) -> Points:
            moved = place(points, depth)
            pen.polygon(moved.ravel().tolist(), fill=colour)
            return moved

        skin, shade = face.skin, _colour(np.array(face.skin) * 0.82)
        self._neck(pen, place, shade)
        self._hair_behind(fill)
        for sign in (-1, 1):
            fill(_ellipse(sign * face.width * 0.97, 0.0, 0.09, 0.13), shade, -0.4)
        head = _ellipse(0, 0, face.width, face.height)
        head[:, 0] *= np.where(head[:, 1] > 0, 1 - (1 - face.jaw) * (head[:, 1] / face.height) ** 2 * 0.5, 1)
        fill(head, shade)
        fill(head * 0.93 + np.array([0.035 * face.light, -0.01]), skin)
        self._hair_front(fill)
        boxes = {}
        for name, sign in (("left_eye", -1), ("right_eye", 1)):
            boxes[name] = self._eye(fill, sign, get("lids"))
            self._brow(fill, sign, get("brow"), get("frown"))
        for sign in (-1, 1) if face.glasses else ():
            self._glasses(pen, place, sign)
        fill(_ellipse(0, 0.06, 0.055 * face.nose, 0.085 * face.nose), shade, 1.6)
        boxes["mouth"] = self._mouth(fill, get("open"), get("curve"), get("wide"), get("skew"))
        return np.asarray(image.reduce(_SUPERSAMPLE)), {name: self._box(points) for name, points in boxes.items()}

    def _box(self, points: Points) -> list[float]:
        scaled = points / _SUPERSAMPLE
        low, high = np.clip(scaled.min(0), 0, self.size), np.clip(scaled.max(0), 0, self.size)
        return [round(float(v), 2) for v in (*low, *high)]

    def _draw_room(self) -> Image.Image:
        face, rng = self.face, np.random.default_rng(self.face.room)
        y, x = np.mgrid[0 : self.side, 0 : self.side] / self.side
        if face.pattern == 0:
            mix = y
        elif face.pattern == 1:
            mix = (np.sin((x * np.cos(1.0) + y * np.sin(1.0)) * rng.uniform(18, 30)) > 0).astype(float)
        elif face.pattern == 2:
            count = int(rng.integers(4, 8))
            mix = ((np.floor(x * count) + np.floor(y * count)) % 2).astype(float)
        else:
            mix = ((np.abs(x - rng.uniform(0.1, 0.9)) < 0.22) & (np.abs(y - 0.25) < 0.22)).astype(float)
        wall = np.array(face.wall) + mix[..., None] * (np.array(face.wall2) - np.array(face.wall)) * 0.6
        image = Image.fromarray(np.clip(wall, 0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        shoulders = (_ellipse(0, 1.12, 0.92, 0.42) + 1) * (self.side / 2)
        pen.polygon(shoulders.ravel().tolist(), fill=face.shirt)
        return image

    def _neck(self, pen: ImageDraw.ImageDraw, place: _Place, shade: Colour) -> None:
        top = place(np.array([[-0.2, 0.45], [0.2, 0.45]]))
        foot = (np.array([[0.24, 0.86], [-0.24, 0.86]]) + 1) * (self.side / 2)
        pen.polygon(np.concatenate([top, foot]).ravel().tolist(), fill=_colour(np.array(shade) * 0.88))

    def _hair_behind(self, fill: _Fill) -> None:
        face = self.face
        if face.hairstyle == 0:  # long
            fill(_ellipse(0, 0.06, face.width + 0.13, face.height + 0.12), face.hair, -0.8)
        elif face.hairstyle == 1:  # short
            fill(_ellipse(0, -0.14, face.width + 0.07, face.height - 0.02), face.hair, -0.6)
        elif face.hairstyle == 2:  # curls
            for angle in np.linspace(np.pi * 0.95, 2.05 * np.pi, 8):
                x, y = (face.width + 0.02) * np.cos(angle), (face.height - 0.04) * np.sin(angle)
                fill(_ellipse(x, y, 0.17, 0.17), face.hair, -0.5)
        # 3: bald

    def _hair_front(self, fill: _Fill) -> None:
        face = self.face
        if face.hairstyle == 3:
            return
        angles = np.linspace(np.pi * 1.08, np.pi * 1.92, 24)
        outer = np.stack([face.width * 1.02 * np.cos(angles), face.height * 1.02 * np.sin(angles)], 1)
        lower = np.array([0.62, 0.5, 0.68][face.hairstyle])
        inner = outer[::-1] * np.array([0.95, 1.0])
        inner[:, 1] = np.minimum(inner[:, 1], -face.height * lower)
        fill(np.concatenate([outer, inner]), face.hair, 0.3)

    def _eye(self, fill: _Fill, sign: int, lids: float) -> Points:
        face = self.face
        x, y, rx, ry = sign * face.eye_gap, -0.13, 0.165 * face.eye_size, 0.125 * face.eye_size
        opening = ry * max(1 + lids, 0.0)
        rim = _ellipse(x, y, rx + 0.02, opening + 0.03)
        outline = fill(rim, _colour(np.array(face.skin) * 0.35), 1.0)
        if opening > 0.012:
            fill(_ellipse(x, y, rx, opening), (250, 250, 250), 1.0)
            for radius, colour in ((0.088, face.iris), (0.045, (12, 12, 14))):
                disc = _ellipse(0, 0, radius, radius)
                limit = opening * np.sqrt(np.clip(1 - (disc[:, 0] / rx) ** 2, 0, 1))
                disc[:, 1] = np.clip(disc[:, 1], -limit, limit)
                fill(disc + np.array([x, y]), colour, 1.15)
        return outline

    def _brow(self, fill: _Fill, sign: int, raised: float, frown: float) -> None:
        face = self.face
        along = np.linspace(-1, 1, 9)  # inner to outer end
        x = face.eye_gap + 0.165 * along - 0.25 * max(frown, 0.0)
        y = -0.325 - raised + 0.03 * along**2 + frown * (0.25 - 0.75 * along)
        upper, lower = np.stack([sign * x, y - 0.032], 1), np.stack([sign * x, y + 0.032], 1)
        dark = np.array(face.hair) * 0.55
        fill(np.concatenate([upper, lower[::-1]]), _colour(dark), 1.0)

    def _glasses(self, pen: ImageDraw.ImageDraw, place: _Place, sign: int) -> None:
        rim = place(_ellipse(sign * self.face.eye_gap, -0.12, 0.215, 0.19), 1.3)
        colour = (30, 30, 34) if self.face.glasses == 1 else (190, 30, 40)
        width = max(2, round(self.side * 0.012))
        pen.line([*rim.ravel().tolist(), *rim[0].tolist()], fill=colour, width=width)
        bridge = place(np.array([[0.0, -0.13], [sign * 0.06, -0.13]]), 1.3)
        pen.line(bridge.ravel().tolist(), fill=colour, width=width)

    def _mouth(self, fill: _Fill, opened: float, curve: float, wide: float, skew: float) -> Points:
        face = self.face
        u = np.linspace(-1, 1, 21)
        half = face.mouth_width * (1 + wide)
        middle = 0.34 - curve * (u**2 - 0.4) + skew * u + 0.35 * max(opened, 0.0)
        gap = (0.012 + max(opened, 0.0)) * np.sqrt(np.clip(1 - u**2, 0, 1))
        lip = 0.045 * (1 - 0.55 * u**2)

        def band(top: Points, bottom: Points, width: float = 1.0) -> Points:
            edge: Points = np.stack([half * u * width, top], 1)
            return np.concatenate([edge, np.stack([half * u * width, bottom], 1)[::-1]])

        outline = fill(band(middle - gap - lip, middle + gap + lip, 1.08), face.lips, 1.05)
        fill(band(middle - gap, middle + gap), (58, 8, 18), 1.05)
        if opened > 0.02:
            fill(band(middle - gap, middle - gap + np.minimum(0.7 * gap, 0.07)), (248, 246, 240), 1.05)
            fill(band(middle + 0.35 * gap, middle + gap, 0.8), (206, 92, 104), 1.05)
        return outline


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return np.stack([x + rx * np.cos(_ANGLES), y + ry * np.sin(_ANGLES)], 1)


def _smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.clip(x, 0, 1)
    result: NDArray[np.float64] = x * x * (3 - 2 * x)
    return result


def _colour(values: NDArray[np.float64]) -> Colour:
    red, green, blue = (int(v) for v in np.clip(np.round(values), 0, 255))
    return red, green, blue


def _hsv(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    wheel = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    result: NDArray[np.float64] = 255 * value * (1 - saturation * (1 - wheel))
    return result
