"""Tiny sets of moving figures in the layouts of UCF-101, Kinetics-600, KTH and TaiChi-HD."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vgen.data.fake.actions import even, write_xvid
from vgen.data.fake.figures import MHAD_ACTIONS, Action, Person, perform
from vgen.data.splits import KTH_CLASSES
from vgen.files import write_text
from vgen.video.io import encode

Pixels = NDArray[np.uint8]
# Classes of the real sets, and rows of MHAD_ACTIONS that are something like them.
UCF_CLASSES: Mapping[str, int] = {
    "BodyWeightSquats": 26, "Bowling": 11, "HandstandPushups": 17, "JumpingJack": 3, "Lunges": 25, "TennisSwing": 14,
}  # fmt: skip
KINETICS_CLASSES: Mapping[str, int] = {
    "baking cookies": 17,
    "clapping": 3,
    "jogging": 21,
    "squat": 26,
    "throwing ball": 4,
}
_KTH_ACTIONS = (
    MHAD_ACTIONS[12],
    MHAD_ACTIONS[3],
    MHAD_ACTIONS[2],
    MHAD_ACTIONS[21],
    Action(body="j"),
    MHAD_ACTIONS[22],
)
# Groups in an order that gives every split training and test groups from the first four on.
_UCF_GROUPS = [first + 7 * block for first in range(1, 8) for block in range(3)]
_UCF_GROUPS[3:3] = [22]
_KTH_PERSONS = (11, 22, 1, 21, 12, 23, 2, 24)  # each of the two divisions has all its sets among the first three


def write_ucf101(
    root: str | Path,
    height: int = 120,
    subjects: int = 4,
    takes: int = 1,
    min_frames: int = 29,
    max_frames: int = 40,
    seed: int = 0,
) -> Path:
    """Writes `UCF-101/<Class>/v_<Class>_g<XX>_c<YY>.avi` (XviD, 4:3, 25 frames/s) and `ucfTrainTestlist/`.

    Args:
        root: Folder to write into.
        height: Height of the pictures (240 in the real set); the width is 4/3 of it.
        subjects: Groups (25 in the real set), each of one person who performs all six classes; at least 4, so that all
            three splits have training and test clips.
        takes: Clips of each group and class (4 to 7 in the real set).
        min_frames: Shortest clip (29 in the real set).
        max_frames: Longest clip.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root, names = Path(root), []
    groups = sorted(_UCF_GROUPS[: max(subjects, 4)])
    for group in groups:
        person = Person.of(np.random.default_rng([seed, group]))
        for name, action in UCF_CLASSES.items():
            spelt = name.replace("HandstandPushups", "HandStandPushups")  # as in the real set
            for take in range(1, takes + 1):
                rng = np.random.default_rng([seed, group, action, take])
                count = int(rng.integers(min_frames, max_frames + 1))
                video = perform(person, MHAD_ACTIONS[action], count, even(height * 4 / 3), height, rng)
                path = f"{name}/v_{spelt}_g{group:02d}_c{take:02d}.avi"
                write_xvid(root / "UCF-101" / path, video, 25)
                names.append((group, path))
    classes = {name: number for number, name in enumerate(UCF_CLASSES, start=1)}
    lists = root / "ucfTrainTestlist"
    write_text(lists / "classInd.txt", "".join(f"{number} {name}\n" for name, number in classes.items()))
    for split in (1, 2, 3):
        held_out = range(7 * split - 6, 7 * split + 1)
        train = [f"{path} {classes[path.split('/')[0]]}\n" for group, path in names if group not in held_out]
        write_text(lists / f"trainlist0{split}.txt", "".join(train))
        write_text(lists / f"testlist0{split}.txt", "".join(f"{p}\n" for group, p in names if group in held_out))
    return root


def write_kinetics600(
    root: str | Path,
    height: int = 96,
    subjects: int = 4,
    takes: int = 1,
    min_frames: int = 16,
    max_frames: int = 24,
    seed: int = 0,
) -> Path:
    """Writes `{train,val,test}/<id>_<start>_<end>.mp4` (H.264, several sizes and rates) and `annotations/`.

    One listed video of each table is not there, as thousands are not in the real set.

    Args:
        root: Folder to write into.
        height: Height of the pictures; the width is 3/4, 4/3 or 16/9 of it.
        subjects: Persons; the last two are for validation and test.
        takes: Clips per person and class.
        min_frames: Shortest clip.
        max_frames: Longest clip.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root = Path(root)
    rows: dict[str, list[tuple[str, str, int, int, str]]] = {"train": [], "val": [], "test": []}
    people = max(subjects, 3)
    for index in range(people):
        split = {people - 2: "val", people - 1: "test"}.get(index, "train")
        person = Person.of(np.random.default_rng([seed, index]))
        for name, action in KINETICS_CLASSES.items():
            for take in range(takes):
                rng = np.random.default_rng([seed, index, action, take])
                video_id = "".join(rng.choice(list("abcdefghijKLMNOPQ0123456789-_"), 11))
                start, width = int(rng.integers(0, 300)), even(height * float(rng.choice([3 / 4, 4 / 3, 16 / 9])))
                count, fps = int(rng.integers(min_frames, max_frames + 1)), float(rng.choice([12, 15, 25, 30]))
                video = perform(person, MHAD_ACTIONS[action], count, width, height, rng)
                encode(root / split / f"{video_id}_{start:06d}_{start + 10:06d}.mp4", video, fps, options={"crf": "16"})
                rows[split].append((name, video_id, start, start + 10, split))
    endings = {"train": "txt", "val": "txt", "test": "csv"}  # as the mirror names them
    for split, found in rows.items():
        path = root / "annotations" / f"{split}.{endings[split]}"
        path.parent.mkdir(exist_ok=True)
        with open(path, "w", newline="") as file:
            lost = ("clapping", "lostXvideo0", 1, 11, split)
            csv.writer(file).writerows([("label", "youtube_id", "time_start", "time_end", "split"), *found, lost])
    return root


def write_kth(
    root: str | Path,
    height: int = 60,
    subjects: int = 4,
    takes: int = 2,
    min_frames: int = 24,
    max_frames: int = 30,
    seed: int = 0,
) -> Path:
    """Writes `<action>/person<XX>_<action>_d1_uncomp.avi` (grey, 4:3, 25 frames/s) and `00sequences.txt`.

    Between the performances of a file, nobody is to be seen.

    Args:
        root: Folder to write into.
        height: Height of the pictures (120 in the real set); the width is 4/3 of it.
        subjects: Persons, 3 to 8.
        takes: Performances in one file (4 in the real set).
        min_frames: Shortest performance.
        max_frames: Longest performance.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root, width = Path(root), even(height * 4 / 3)
    lines = ["person13_handclapping_d3\t\t*missing*"]
    for number in _KTH_PERSONS[: max(subjects, 3)]:
        person = Person.of(np.random.default_rng([seed, number]))
        for name, action in zip(KTH_CLASSES, _KTH_ACTIONS, strict=True):
            pieces, ranges, first = [], [], 1
            for take in range(takes):
                rng = np.random.default_rng([seed, number, KTH_CLASSES.index(name), take])
                count = int(rng.integers(min_frames, max_frames + 1))
                performance = perform(person, action, count, width, height, rng)
                # "running" is jogging twice as fast.
                performance = np.concatenate([performance[::2]] * 2)[:count] if name == "running" else performance
                empty = np.repeat(np.full_like(performance[:1], 0) + np.uint8(np.mean(person.wall)), 5, axis=0)
                pieces += [performance, empty]
                ranges.append(f"{first}-{first + count - 1}")
                first += count + len(empty)
            stem = f"person{number:02d}_{name}_d1"
            grey = np.concatenate(pieces).mean(-1, keepdims=True).round().astype(np.uint8)
            write_xvid(root / name / f"{stem}_uncomp.avi", np.repeat(grey, 3, axis=3), 25)
            lines.append(f"{stem}\t\tframes\t{', '.join(ranges)}")
    write_text(root / "00sequences.txt", "\n\n".join(lines) + "\n")
    return root


def write_taichi(
    root: str | Path,
    size: int = 64,
    subjects: int = 4,
    takes: int = 2,
    min_frames: int = 64,
    max_frames: int = 72,
    seed: int = 0,
) -> Path:
    """Writes `{train,test}/<video>#<first>#<last>.mp4`, by turns a video and a folder of PNG, as both are in use.

    Args:
        root: Folder to write into.
        size: Side of the square pictures (256 in the real set).
        subjects: Source videos, of one person each; every fourth is for testing.
        takes: Chunks of each.
        min_frames: Shortest chunk (128 in the real set).
        max_frames: Longest chunk.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root = Path(root)
    for index in range(max(subjects, 2)):
        person = Person.of(np.random.default_rng([seed, index]))
        split = "test" if index % 4 == 1 else "train"
        for take in range(takes):
            rng = np.random.default_rng([seed, index, take])
            count, first = int(rng.integers(min_frames, max_frames + 1)), 500 * take
            action = MHAD_ACTIONS[int(rng.choice([3, 8, 15, 17]))]
            video = perform(person, action, count, size, size, rng)
            target = root / split / f"tc_{index:08d}#{first:06d}#{first + count:06d}.mp4"
            if take % 2:
                encode(target, video, 30, options={"crf": "14"})
                continue
            target.mkdir(parents=True)
            for number, frame in enumerate(video):
                Image.fromarray(frame).save(target / f"{number:07d}.png")
    return root
