"""The drawn sets: true layout, same seed same files, class in the motion and not in the first frame."""

import json

import numpy as np
import pytest

from vgen.data.datamodules import MUG, Folder
from vgen.data.fake import write_folder, write_mug
from vgen.data.fake.faces import EXPRESSIONS, motion
from vgen.data.splits import MUG_CLASSES
from vgen.video.io import read_frames


def clips_of(module, split, frames):
    dataset = module.dataset(split)
    items = [dataset[i] for i in range(len(dataset))]
    videos = np.stack([item["video"].numpy() for item in items]).astype(np.float32) / 255
    return videos.reshape(len(items), 3, frames, -1), np.array([item["label"] for item in items]), items


def test_same_seed_same_files_and_any_number_of_processes(tmp_path):
    roots = [
        write_mug(tmp_path / name, size=16, train_subjects=1, test_subjects=1, takes=1, seed=seed, processes=processes)
        for name, seed, processes in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1))
    ]
    files = [{p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in roots]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_every_subject_performs_every_class(mug_root):
    module = MUG(str(mug_root), size=32, frames=8)
    seen = {(r.subject, r.label) for r in module.index.records}
    subjects = {r.subject for r in module.index.records}
    assert len(subjects) == 7 and len(seen) == 7 * 7
    assert all(16 <= r.frames <= 20 for r in module.index.records)


def test_channels_start_at_exactly_nothing():
    for peaks in EXPRESSIONS.values():
        for seed in range(5):
            course = motion(peaks, 16, np.random.default_rng(seed))
            assert all(values[0] == 0 for values in course.values())
            assert max(np.abs(values).max() for values in course.values()) > 0.1


def test_the_class_is_read_from_motion_but_not_from_the_first_frame(mug_root):
    """Nearest neighbour over other persons: on frame differences far above chance, on first frames at chance."""
    videos, labels, items = clips_of(MUG(str(mug_root), size=32, frames=8, eval_sampling="uniform"), "test", 8)
    subjects = np.array([item["subject"] for item in items])

    def accuracy(features):
        hits = []
        for i in range(len(features)):
            others = np.flatnonzero(subjects != subjects[i])
            nearest = others[np.abs(features[others] - features[i]).mean(-1).argmin()]
            hits.append(labels[nearest] == labels[i])
        return float(np.mean(hits))

    moving = np.abs(np.diff(videos, axis=2)).mean(1).reshape(len(videos), -1)
    first = videos[:, :, 0].reshape(len(videos), -1)
    assert accuracy(moving) > 0.5
    assert accuracy(first) < 0.35
    # Every class moves visibly, "neutral" too.
    for label, name in enumerate(MUG_CLASSES):
        strength = np.abs(videos[labels == label] - videos[labels == label][:, :, :1]).mean()
        assert strength > 0.01, name


def test_landmarks_follow_mouth_and_eyes(mug_root):
    landmarks = json.loads((mug_root / "landmarks.json").read_text())
    clip = next(name for name in landmarks["clips"] if name.endswith("surprise/take000"))
    boxes = landmarks["clips"][clip]
    frames = read_frames(mug_root / clip)
    assert landmarks["size"] == 32 and len(boxes) == len(frames)
    heights = [b["mouth"][3] - b["mouth"][1] for b in boxes]
    assert max(heights) > 2 * heights[0]  # the mouth opens wide
    for box in boxes:
        assert box["left_eye"][2] < box["right_eye"][0] and box["left_eye"][3] < box["mouth"][1]
        assert all(0 <= v <= 32 for part in box.values() for v in part)
    # There is more change inside the boxes than in the whole picture.
    x0, y0, x1, y1 = (round(v) for v in boxes[-3]["mouth"])
    change = np.abs(frames[-3].astype(int) - frames[0].astype(int))
    assert change[y0:y1, x0:x1].mean() > 1.5 * change.mean()


@pytest.mark.parametrize("metadata", [False, True])
def test_folder_sets(tmp_path, metadata):
    root = write_folder(tmp_path / "set", size=32, subjects=3, frames=6, metadata=metadata)
    module = Folder(str(root), size=32, frames=6)
    assert module.clip_spec.class_names == ("circle", "clap", "jog", "squat", "wave")
    assert len(module.index.records) == 15
    if metadata:
        assert {r.subject for r in module.index.of("test")} == {"p02"}
        assert module.dataset("train")[0]["text"].startswith("a person doing")
