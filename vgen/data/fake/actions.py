"""Tiny sets of moving figures in the layouts of UTD-MHAD, NATOPS and of a plain folder of classes."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vgen.data.fake.figures import MHAD_ACTIONS, NATOPS_ACTIONS, Person, perform
from vgen.data.splits import MHAD_TEST, MHAD_TRAIN, NATOPS_TEST, NATOPS_TRAIN
from vgen.files import atomic_path, write_text
from vgen.video.io import encode

FOLDER_CLASSES = {"circle": 8, "clap": 3, "jog": 21, "squat": 26, "wave": 2}  # name -> row of MHAD_ACTIONS


def write_mhad(
    root: str | Path,
    height: int = 96,
    subjects: int = 4,
    actions: Sequence[int] = tuple(range(1, 28)),
    trials: int = 1,
    min_frames: int = 32,
    max_frames: int = 40,
    seed: int = 0,
) -> Path:
    """Writes `RGB/a<action>_s<subject>_t<trial>_color.avi` (XviD, 4:3) of moving figures.

    Args:
        root: Folder to write into.
        height: Height of the pictures (480 in the real set); the width is 4/3 of it.
        subjects: Persons, half of them from the training list.
        actions: Action numbers, 1..27.
        trials: Takes per person and action.
        min_frames: Shortest clip (32 in the real set).
        max_frames: Longest clip (96 in the real set).
        seed: Decides everything.

    Returns:
        The root folder.
    """
    chosen = [*MHAD_TRAIN[: (subjects + 1) // 2], *MHAD_TEST[: subjects // 2]]
    for subject in chosen:
        person = Person.of(np.random.default_rng([seed, int(subject)]))
        for action in actions:
            for trial in range(1, trials + 1):
                rng = np.random.default_rng([seed, int(subject), action, trial])
                count = int(rng.integers(min_frames, max_frames + 1))
                video = perform(person, MHAD_ACTIONS[action - 1], count, even(height * 4 / 3), height, rng)
                write_xvid(Path(root, "RGB", f"a{action}_s{subject}_t{trial}_color.avi"), video, 15)
    return Path(root)


def write_natops(
    root: str | Path,
    height: int = 60,
    subjects: int = 4,
    gestures: int = 24,
    repetitions: int = 2,
    min_frames: int = 40,
    max_frames: int = 48,
    seed: int = 0,
) -> Path:
    """Writes `gesture<XX>/g<XX>s<YY>.avi` (XviD, 20 fps) and `segmentation.txt` with every repetition's frames.

    Args:
        root: Folder to write into.
        height: Height of the pictures (240 in the real set); the width is 4/3 of it.
        subjects: Persons, half of them from the training list.
        gestures: The first so many of the 24 gestures.
        repetitions: Performances in one file (20 in the real set).
        min_frames: Shortest repetition.
        max_frames: Longest repetition.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    chosen = sorted([*NATOPS_TRAIN[: (subjects + 1) // 2], *NATOPS_TEST[: subjects // 2]], key=int)
    lines: list[str] = []
    for subject in chosen:
        lines.append(f"// Subject {subject}")
        person = Person.of(np.random.default_rng([seed, int(subject)]))
        for gesture in range(1, gestures + 1):
            lines.append(f"{subject},{gesture},{repetitions}")
            takes, first = [], 1
            for repetition in range(1, repetitions + 1):
                rng = np.random.default_rng([seed, int(subject), gesture, repetition])
                count = int(rng.integers(min_frames, max_frames + 1))
                takes.append(perform(person, NATOPS_ACTIONS[gesture - 1], count, even(height * 4 / 3), height, rng))
                lines.append(f"{repetition}:{first},{first + count - 1}")
                first += count
            name = f"gesture{gesture:02d}/g{gesture:02d}s{int(subject):02d}.avi"
            write_xvid(Path(root, name), np.concatenate(takes), 20)
    with atomic_path(Path(root, "segmentation.txt")) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return Path(root)


def write_folder(
    root: str | Path,
    size: int = 64,
    subjects: int = 6,
    takes: int = 1,
    frames: int = 20,
    metadata: bool = False,
    captions: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a plain set of H.264 clips of five actions.

    Args:
        root: Folder to write into.
        size: Side of the square pictures.
        subjects: Persons.
        takes: Clips per person and class.
        frames: Frames of each clip.
        metadata: False: `<class>/p<person>_<take>.mp4`. True: all clips in `clips/`, and `metadata.csv` with columns
            path, label, subject, caption, split (the last third of the persons is the test set).
        captions: A text file with a caption beside every clip.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root, rows = Path(root), []
    for index in range(subjects):
        person = Person.of(np.random.default_rng([seed, index]))
        for name, action in FOLDER_CLASSES.items():
            for take in range(takes):
                rng = np.random.default_rng([seed, index, action, take])
                video = perform(person, MHAD_ACTIONS[action], frames, size, size, rng)
                path = f"clips/p{index:02d}_{name}_{take}.mp4" if metadata else f"{name}/p{index:02d}_{take}.mp4"
                encode(root / path, video, 12, options={"crf": "14"})
                if captions:
                    write_text((root / path).with_suffix(".txt"), f"a person doing: {name}\n")
                split = "test" if index >= subjects - subjects // 3 else "train"
                rows.append((path, name, f"p{index:02d}", f"a person doing: {name}", split))
    if metadata:
        with atomic_path(root / "metadata.csv") as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "subject", "caption", "split"), *rows])
    return root


def write_xvid(path: Path, video: "np.ndarray", fps: float) -> None:  # type: ignore[type-arg]
    """Writes frames (T, H, W, 3) uint8 as the AVI files of UCF-101, KTH, MHAD and NATOPS are: MPEG-4, one key frame."""
    # The fourcc of the real files; a fixed quantiser of 3 (x 118) keeps small pictures clean.
    encode(
        path,
        video,
        fps,
        codec="mpeg4",
        options={"flags": "+qscale", "global_quality": "354", "g": "300"},
        codec_tag="XVID",
    )


def even(value: float) -> int:
    """The nearest even number: what video codecs ask of a picture's sides."""
    return round(value / 2) * 2
