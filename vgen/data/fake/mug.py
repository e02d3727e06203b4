"""A tiny set of drawn faces in the layout of the MUG facial expression database."""

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vgen.data.fake.faces import EXPRESSIONS, Face, Portrait, motion
from vgen.data.splits import MUG_CLASSES, MUG_SESSION_SUBJECTS, MUG_TEST, MUG_TRAIN
from vgen.files import atomic_path


def write_mug(
    root: str | Path,
    size: int = 64,
    train_subjects: int = 24,
    test_subjects: int = 8,
    takes: int = 2,
    min_frames: int = 16,
    max_frames: int = 20,
    seed: int = 0,
    processes: int = 1,
) -> Path:
    """Writes `<subject>/<expression>/<take>/img_0000.jpg` for persons of the real training and test lists.

    Every person performs every expression, so a class says nothing about who is seen. The multi-session subjects of
    the real set have their session level here too. `landmarks.json` at the root holds, for every clip (relative
    folder) and frame, pixel boxes [x0, y0, x1, y1] of mouth and eyes, for metrics on those parts.

    Args:
        root: Folder to write into.
        size: Side of the square pictures in pixels.
        train_subjects: Persons of the training list, at most 26.
        test_subjects: Persons of the test list, at most 26.
        takes: Clips per person and expression.
        min_frames: Shortest clip.
        max_frames: Longest clip.
        seed: Decides everything.
        processes: Worker processes; the result does not depend on it.

    Returns:
        The root folder.
    """
    # With few test persons, one of two sessions is among them, as the first or last of the list.
    test = [*MUG_TEST[: max(test_subjects - 1, 0)], "049"] if 1 < test_subjects < 15 else list(MUG_TEST[:test_subjects])
    subjects = [*MUG_TRAIN[:train_subjects], *test]
    root = Path(root)
    write = partial(_write_subject, root, size, takes, (min_frames, max_frames), seed)
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            parts = list(pool.map(write, subjects))
    else:
        parts = [write(subject) for subject in subjects]
    landmarks = {clip: boxes for part in parts for clip, boxes in part.items()}
    with atomic_path(root / "landmarks.json") as temporary:
        temporary.write_text(json.dumps({"size": size, "clips": landmarks}, separators=(",", ":")))
    return root


def _write_subject(
    root: Path, size: int, takes: int, frames: tuple[int, int], seed: int, subject: str
) -> dict[str, list[dict[str, Any]]]:
    portrait = Portrait(Face.of(np.random.default_rng([seed, int(subject)])), size)
    landmarks: dict[str, list[dict[str, Any]]] = {}
    for label, name in enumerate(MUG_CLASSES):
        for take in range(takes):
            if subject in MUG_SESSION_SUBJECTS:
                half = (takes + 1) // 2
                clip = f"{subject}/session{take // half}/{name}/take{take % half:03d}"
            else:
                clip = f"{subject}/{name}/take{take:03d}"
            rng = np.random.default_rng([seed, int(subject), label, take])
            pose0 = {
                "x": rng.uniform(-0.04, 0.04),
                "y": rng.uniform(-0.04, 0.04),
                "roll": rng.uniform(-0.04, 0.04),
                "scale": rng.uniform(-0.04, 0.04),
            }
            count = int(rng.integers(frames[0], frames[1] + 1))
            course = motion(EXPRESSIONS[name], count, rng)
            folder = root / clip
            folder.mkdir(parents=True, exist_ok=True)
            landmarks[clip] = []
            for t in range(count):
                pose = {key: float(values[t]) for key, values in course.items()}
                for key, offset in pose0.items():
                    pose[key] = pose.get(key, 0.0) + offset
                picture, boxes = portrait.draw(pose)
                # Full chroma resolution: at 64 px, halved chroma would blur lips and irises away.
                Image.fromarray(picture).save(folder / f"img_{t:04d}.jpg", quality=95, subsampling=0)
                landmarks[clip].append(boxes)
    return landmarks
