"""A labelled set of camera motions, cut from a person's own videos.

Every region of a video gives one clip of every class, and all of them start with the very same frame: a class can be
told from the motion alone, never from the first frame. The picture plays on while the camera moves.
"""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgen.errors import UserError
from vgen.files import atomic_path
from vgen.video.io import encode, iter_frames, probe

Pixels = NDArray[np.uint8]

# Movement of the window over a clip: shift (x, y) in window sides, and factor of its side.
MOTIONS: dict[str, tuple[float, float, float]] = {
    "pan_left": (-0.32, 0.0, 1.0),
    "pan_right": (0.32, 0.0, 1.0),
    "pan_up": (0.0, -0.32, 1.0),
    "pan_down": (0.0, 0.32, 1.0),
    "zoom_in": (0.0, 0.0, 1 / 1.55),
    "zoom_out": (0.0, 0.0, 1.55),
}
_JITTER = 0.15  # how much stronger or weaker a region's motions may be
_ROOM = 0.5 + 0.32 * (1 + _JITTER)  # half a window and the way it can go, in window sides
_SHORT_SIDE = 288  # videos are first brought down to this, so that a window shows more than a patch of texture
_WINDOWS = (0.75, 1.0, 1.5)  # window sides relative to the size of the clips
_TEST_SHARE = 0.3
_FLAT = 3.0  # mean gradient in grey levels per pixel below which a region shows nothing
_DRIFT = 0.12  # in window sides: regions that move further by themselves would blur the classes


@dataclass(frozen=True)
class Region:
    """A place in a video: centre and side of the first window in pixels, and the first frame."""

    x: float
    y: float
    side: float
    start: int
    split: str


def make_motions(
    videos: Sequence[str | Path],
    out: str | Path,
    size: int = 64,
    frames: int = 16,
    max_regions: int = 240,
    seed: int = 0,
) -> dict[str, int]:
    """Writes `<out>/{train,test}/<motion>/<video>_<number>.mp4`, to be read by the Folder DataModule.

    `metadata.csv` names every clip's motion, set and, as its subject, the region that it was cut from. Regions of the
    two sets never overlap: they come from different parts of the picture (the right-hand 30 % is the test part) or,
    where the picture is too narrow for that, from different times. Scene cuts end a clip.

    Args:
        videos: Source files.
        out: Folder to make; must not exist or be empty.
        size: Side of the clips in pixels.
        frames: Frames of a clip.
        max_regions: At most so many regions of each video, spread evenly.
        seed: Decides the strengths of motion.

    Returns:
        Number of clips by "<set>/<motion>".

    Raises:
        UserError: Folder not empty, or no region can be used.
        UnreadableVideo: A source cannot be read.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise UserError("the folder is not empty", where=str(out), hint="choose a new one")
    if len({Path(v).stem for v in videos}) < len(videos):
        raise UserError("two videos have the same name", where=", ".join(str(v) for v in videos))
    counts: dict[str, int] = {}
    sources, rows = [], []
    for number, video in enumerate(videos):
        path = Path(video)
        pictures, fps = _load(path), probe(path).fps or 25.0
        regions = find_regions(pictures, size, frames)
        if len(regions) > max_regions:
            regions = [regions[i * len(regions) // max_regions] for i in range(max_regions)]
        for index, region in enumerate(regions):
            strength = float(np.random.default_rng((seed, number, index)).uniform(1 - _JITTER, 1 + _JITTER))
            for name in MOTIONS:
                clip = render(pictures, region, name, size, frames, strength)
                place = f"{path.stem}_{index:04d}"
                target = out / region.split / name / f"{place}.mp4"
                encode(target, clip, fps, options={"crf": "12", "preset": "veryfast"})
                rows.append((target.relative_to(out).as_posix(), name, place, region.split))
                key = f"{region.split}/{name}"
                counts[key] = counts.get(key, 0) + 1
        sources.append({"file": path.name, "frames": len(pictures), "regions": len(regions), "fps": fps})
    if not counts:
        raise UserError(
            "no region of these videos can be used",
            where=", ".join(str(v) for v in videos),
            hint=f"they must have {frames} frames without a cut, {math.ceil(2 * _ROOM * size)} px and some detail",
        )
    with atomic_path(out / "metadata.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "subject", "split"), *rows])
    about = {"sources": sources, "size": size, "frames": frames, "seed": seed, "counts": counts}
    with atomic_path(out / "motions.json") as temporary:
        temporary.write_text(json.dumps(about, indent=2))
    return counts


def find_regions(pictures: Pixels, size: int, frames: int) -> list[Region]:
    """Places with detail, room for all motions and no motion of their own, for clips of `frames` frames.

    Args:
        pictures: (T, H, W, 3) uint8, one video.
        size: Side of the clips.
        frames: Frames of a clip.
    """
    height, width = pictures.shape[1:3]
    grey = pictures.mean(-1, dtype=np.float32)
    scenes = split_scenes(grey)
    starts = [s for a, b in scenes for s in range(a, b - frames + 1, frames)]
    border = round(width * (1 - _TEST_SHARE))
    if math.ceil(2 * _ROOM * size) <= width - border:
        parts = [("train", 0, border, starts), ("test", border, width, starts)]
    else:
        # At least one clip stays unused between the two.
        last = pictures.shape[0] * (1 - _TEST_SHARE)
        parts = [
            ("train", 0, width, [s for s in starts if s + frames <= last - frames]),
            ("test", 0, width, [s for s in starts if s >= last]),
        ]
    regions = []
    for relative in _WINDOWS:
        side = relative * size
        reach = math.ceil(2 * _ROOM * side)
        for split, left, right, times in parts:
            for x in _centres(left, right, reach):
                for y in _centres(0, height, reach):
                    for start in times:
                        region = Region(x, y, side, start, split)
                        if _usable(grey, region, frames):
                            regions.append(region)
    return sorted(regions, key=lambda r: (r.start, r.side, r.y, r.x))


def split_scenes(grey: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First and last-plus-one frame of every scene; a cut is a change far above what is usual in the video.

    Args:
        grey: (T, H, W) in grey levels.
    """
    if len(grey) < 2:
        return [(0, len(grey))]
    small = grey[:, ::4, ::4]
    change = np.abs(np.diff(small, axis=0)).mean((1, 2))
    cuts = np.flatnonzero(change > max(12.0, 6 * float(np.median(change)))) + 1
    edges = [0, *(int(c) for c in cuts), len(grey)]
    return list(pairwise(edges))


def render(pictures: Pixels, region: Region, motion: str, size: int, frames: int, strength: float = 1.0) -> Pixels:
    """One clip (frames, size, size, 3) uint8: `motion` over `region`; frame 0 is the same for all motions."""
    dx, dy, zoom = MOTIONS[motion]
    clip = []
    for t in range(frames):
        course = strength * t / max(frames - 1, 1)
        half = region.side * zoom**course / 2
        x, y = region.x + dx * course * region.side, region.y + dy * course * region.side
        picture = Image.fromarray(pictures[region.start + t])
        box = (x - half, y - half, x + half, y + half)
        clip.append(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    return np.stack(clip)


def _usable(grey: NDArray[np.float32], region: Region, frames: int) -> bool:
    half = region.side / 2
    rows = slice(round(region.y - half), round(region.y + half))
    columns = slice(round(region.x - half), round(region.x + half))
    clip = grey[region.start : region.start + frames, rows, columns]
    detail = min(float(np.abs(np.diff(clip[0], axis=axis)).mean()) for axis in (0, 1))
    limit = _DRIFT * region.side
    if detail < _FLAT or math.hypot(*_shift(clip[0], clip[-1])) > limit:
        return False
    # What moves by more than the window from first to last frame shows up only from frame to frame.
    steps = [_shift(a, b) for a, b in pairwise(clip)]
    return math.hypot(*(sum(step) for step in zip(*steps, strict=True))) <= limit


def _shift(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[int, int]:
    """Pixels (down, right) by which a picture moved as a whole (phase correlation)."""
    window = np.hanning(first.shape[0])[:, None] * np.hanning(first.shape[1])
    spectrum = np.fft.fft2((first - first.mean()) * window) * np.conj(np.fft.fft2((second - second.mean()) * window))
    peak = np.fft.ifft2(spectrum / (np.abs(spectrum) + 1e-6)).real
    at = np.unravel_index(int(peak.argmax()), peak.shape)
    # The second half of the correlation stands for negative shifts.
    down, right = (int(a) - n * (int(a) > n // 2) for a, n in zip(at, peak.shape, strict=True))
    return -down, -right


def _centres(low: int, high: int, reach: int) -> list[float]:
    """Centres of as many intervals of length `reach` as fit side by side, spread evenly."""
    count = (high - low) // reach
    rest = (high - low - count * reach) / max(count, 1)
    return [low + (i + 0.5) * (reach + rest) for i in range(count)]


def _load(path: Path) -> Pixels:
    pictures = []
    for frame in iter_frames(path):
        scale = min(1.0, _SHORT_SIDE / min(frame.shape[:2]))
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        pictures.append(np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)))
    return np.stack(pictures)
