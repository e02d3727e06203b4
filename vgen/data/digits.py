"""Bouncing digits: the generation rule of SVG (Denton and Fergus 2018), and where digits come from.

A canvas of S pixels shows digits of S/2 pixels each. Every digit starts anywhere with a velocity of whole pixels per
frame, at most S/16 (4 for 64 pixels) along either axis, and is stopped at a wall by one pixel less than could be: a
quirk of the published generator that fixed test sets share.
"""

import gzip
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgen.data.transforms import Pixels
from vgen.errors import UserError

Walls = Literal["deterministic", "stochastic"]
_IDX_IMAGES, _IDX_LABELS = 2051, 2049  # magic numbers of MNIST's files
_DIRECTIONS = {
    (0, 0): "still", (1, 0): "right", (-1, 0): "left", (0, 1): "down", (0, -1): "up",
    (1, 1): "down right", (-1, 1): "down left", (1, -1): "up right", (-1, -1): "up left",
}  # fmt: skip
DIRECTIONS = tuple(_DIRECTIONS.values())


@dataclass(frozen=True)
class Digits:
    """Pictures of digits.

    Args:
        images: (N, h, w) uint8, bright on black.
        labels: (N,) which digit each shows.
    """

    images: Pixels
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """What one clip shows: exact ground truth.

    Args:
        sources: Which picture each of D digits is.
        positions: (T, D, 2) column and row of every digit's upper left corner.
        velocities: (D, 2) columns and rows per frame at the start.
    """

    sources: NDArray[np.int64]
    positions: NDArray[np.int64]
    velocities: NDArray[np.int64]

    def direction(self, digit: int = 0) -> str:
        """Where a digit sets out to, in words."""
        across, down = np.sign(self.velocities[digit])
        return _DIRECTIONS[int(across), int(down)]


def directions(still: bool) -> tuple[str, ...]:
    """Where digits may set out to, `still` among them or not."""
    return DIRECTIONS if still else tuple(way for way in DIRECTIONS if way != "still")


def bounce(
    frames: int,
    canvas: int,
    digits: int,
    images: int,
    walls: Walls,
    seed: tuple[int, ...],
    first: int | None = None,
    still: bool = True,
) -> Scene:
    """Draws what a clip shows; a longer clip from the same seed begins with the shorter one.

    Args:
        frames: Frames T.
        canvas: Side of the canvas in pixels.
        digits: Number of digits D.
        images: Number of pictures to choose from.
        walls: What happens at a wall. `deterministic`: the velocity into the wall turns round. `stochastic`: a new
            velocity away from the wall, and a new one along it.
        seed: Decides everything.
        first: Which picture the first digit is; None: drawn like the others.
        still: Whether a digit may stand still, as one in (2 S/16 + 1)^2 does; otherwise its velocity is drawn again.
    """
    sources, positions, velocities = [], [], []
    for digit in range(digits):
        rng = np.random.default_rng((*seed, digit))
        drawn = int(rng.integers(images))
        sources.append(drawn if first is None or digit else first)
        places, velocity = _course(frames, canvas, walls, rng, still)
        positions.append(places)
        velocities.append(velocity)
    return Scene(np.array(sources), np.stack(positions, 1), np.array(velocities))


def _course(
    frames: int, canvas: int, walls: Walls, rng: np.random.Generator, still: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    room, fastest = canvas - canvas // 2, max(1, canvas // 16)
    place = rng.integers(0, room, 2)
    velocity = rng.integers(-fastest, fastest + 1, 2)
    while not still and not velocity.any():
        velocity = rng.integers(-fastest, fastest + 1, 2)
    start, places = velocity.copy(), []
    for _ in range(frames):
        # Rows before columns, as the published generator has it: in a corner, the columns' draw decides.
        for axis in (1, 0):
            if 0 <= place[axis] < room:
                continue
            away = 1 if place[axis] < 0 else -1
            place[axis] = 0 if away > 0 else room - 1
            if walls == "deterministic":
                velocity[axis] = -velocity[axis]
            else:
                velocity[axis] = away * int(rng.integers(1, fastest + 1))
                velocity[1 - axis] = int(rng.integers(-fastest, fastest + 1))
        places.append(place.copy())
        place = place + velocity
    return np.stack(places), start


def draw(scene: Scene, pictures: Pixels, canvas: int, indices: NDArray[np.int64]) -> Pixels:
    """Frames (T, canvas, canvas, 3) of a scene; where digits overlap, their brightness adds up to white at most.

    Args:
        scene: What to show.
        pictures: (N, canvas // 2, canvas // 2) uint8.
        canvas: Side in pixels.
        indices: Which frames.
    """
    side = canvas // 2
    frames = np.zeros((len(indices), canvas, canvas), np.uint16)
    for frame, t in zip(frames, indices, strict=True):
        for source, (x, y) in zip(scene.sources, scene.positions[t], strict=True):
            frame[y : y + side, x : x + side] += pictures[source]
    return np.repeat(np.minimum(frames, 255).astype(np.uint8)[..., None], 3, axis=3)


def enlarge(images: Pixels, side: int) -> Pixels:
    """Pictures (N, side, side): bilinear, as SVG resizes MNIST's 28 pixels to 32."""
    resized = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in resized])


@lru_cache(maxsize=4)
def read_idx(folder: Path, name: Literal["train", "t10k"]) -> Digits:
    """MNIST (or Fashion-MNIST) as it is downloaded: IDX files, packed by gzip or not.

    Args:
        folder: Where the files lie.
        name: `train` or `t10k`.

    Raises:
        UserError: A file is missing, cut off, or none of this kind.
    """
    images = _read_idx(folder, f"{name}-images-idx3-ubyte", _IDX_IMAGES, 3)
    labels = _read_idx(folder, f"{name}-labels-idx1-ubyte", _IDX_LABELS, 1)
    if len(images) != len(labels):
        raise UserError(
            f"{len(images)} pictures but {len(labels)} labels of {name}", str(folder), "download them again"
        )
    return Digits(images, labels.astype(np.int64))


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of that name, `.gz` or not, dots for dashes or not: all four are in circulation."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def _read_idx(folder: Path, name: str, magic: int, dimensions: int) -> Pixels:
    path = find_idx(folder, name)
    if path is None:
        raise UserError(f"no {name}(.gz)", str(folder), "MNIST: four files, http://yann.lecun.com/exdb/mnist/")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found, *shape = struct.unpack_from(f">{1 + dimensions}i", content)
        if found != magic:
            raise ValueError(f"it begins with {found} instead of {magic}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise UserError(f"not an IDX file of MNIST, or cut off ({error})", str(path), "download it again") from error


@lru_cache(maxsize=1)
def scikit_learn_digits() -> Digits:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn ships.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("moving_digits needs scikit-learn", hint="pip install 'vgen[digits]'") from error
    found = load_digits()
    return Digits((found.images * (255 / 16)).round().astype(np.uint8), found.target.astype(np.int64))
