"""Bouncing digits follow SVG's rule, and their ground truth is what is drawn."""

import gzip
import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from vgen.data.datamodules import MovingDigits, MovingMNIST
from vgen.data.digits import DIRECTIONS, bounce, draw, read_idx
from vgen.errors import UserError

needs_digits = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")


@pytest.mark.parametrize("walls", ["deterministic", "stochastic"])
def test_courses_follow_the_published_rule(walls):
    turns = set()
    for number in range(200):
        scene = bounce(40, 64, 1, 5, walls, (number,))
        places, steps = scene.positions[:, 0], np.diff(scene.positions[:, 0], axis=0)
        assert places.min() >= 0 and places.max() <= 31 and np.abs(scene.velocities).max() <= 4
        velocity = scene.velocities[0].copy()
        for t, step in enumerate(steps):
            free = places[t] + velocity
            inside = (free >= 0) & (free < 32)
            if inside.all():
                assert (step == velocity).all()
                continue
            # Stopped at 0 or 31, then away from that wall (or along it, where the course is a corner's).
            for axis in np.flatnonzero(~inside):
                assert places[t + 1][axis] == (0 if free[axis] < 0 else 31)
            if t + 2 >= len(places):
                break
            following = steps[t + 1]
            if walls == "deterministic":
                expected = np.where(inside, velocity, -velocity)
                if ((places[t + 1] + expected >= 0) & (places[t + 1] + expected < 32)).all():
                    assert (following == expected).all()
                velocity = expected
            else:
                (axis, *more) = np.flatnonzero(~inside)
                if not more and 0 < following[1 - axis] + places[t + 1][1 - axis] < 31:
                    away = following[axis] * (1 if free[axis] < 0 else -1)
                    assert 1 <= away <= 4 and abs(following[1 - axis]) <= 4
                    turns.add(int(away))
                break  # the velocity is a new one
    assert walls == "deterministic" or turns == {1, 2, 3, 4}


def test_longer_clips_begin_with_shorter_ones():
    short, long = (bounce(frames, 64, 2, 7, "stochastic", (3, 1)) for frames in (10, 50))
    assert np.array_equal(long.positions[:10], short.positions) and np.array_equal(long.sources, short.sources)
    scenes = [bounce(1, 64, 1, 7, "stochastic", (n,)) for n in range(2000)]
    starts, speeds = (np.stack(v) for v in zip(*((s.positions[0, 0], s.velocities[0]) for s in scenes), strict=True))
    assert set(starts[:, 0]) == set(range(32)) and set(speeds[:, 1]) == set(range(-4, 5))


def test_drawing_adds_up_to_white_at_most():
    scene = bounce(3, 64, 2, 2, "deterministic", (0,))
    picture = np.full((2, 32, 32), 200, np.uint8)
    clip = draw(scene, picture, 64, np.arange(3))
    covered = np.zeros((64, 64), int)
    for x, y in scene.positions[1]:
        covered[y : y + 32, x : x + 32] += 1
    assert np.array_equal(clip[1, ..., 0], np.minimum(covered * 200, 255))
    assert (clip == clip[..., :1]).all()


@needs_digits
def test_moving_digits_keep_handwriting_apart_and_tell_the_truth():
    module = MovingDigits(32, 8, train_clips=60, test_clips=20, batch_size=5)
    train, test = module.pictures("train"), module.pictures("test")
    assert (len(train.labels), len(test.labels)) == (1347, 450) and set(test.labels) == set(range(10))
    record = module.index.of("train")[7]
    item, scene = module.dataset("train")[7], module.scene(record)
    start = int(item["frame_index"][0])
    drawn = draw(scene, module.reader().pictures["train"], 32, np.arange(start, start + 8))
    assert np.array_equal(item["video"].permute(1, 2, 3, 0).numpy(), drawn)
    assert item["label"] == train.labels[scene.sources[0]] and item["text"].startswith(f"{item['label']} moving ")
    batch = next(iter(module.train_dataloader()))
    assert batch["video"].shape == (5, 3, 8, 32, 32) and batch["video"].max() > 100
    assert module.clip_spec.class_names == tuple("0123456789")
    assert MovingDigits(32, 8, train_clips=60, test_clips=20).fingerprint == module.fingerprint
    assert MovingDigits(32, 8, train_clips=60, test_clips=20, variant="stochastic").fingerprint != module.fingerprint


@needs_digits
def test_motion_labels_are_read_from_motion_and_not_from_the_first_frame():
    module = MovingDigits(32, 6, train_clips=600, test_clips=10, labels="motion", sampling="first")
    assert module.clip_spec.class_names == DIRECTIONS
    items = [module.dataset("train")[n] for n in range(600)]
    labels = np.array([item["label"] for item in items])

    def centre(frame):
        rows, columns = np.nonzero(frame > 60)
        return np.array([columns.mean(), rows.mean()])

    moved = np.array([centre(i["video"][0, 1].numpy()) - centre(i["video"][0, 0].numpy()) for i in items])
    # A digit that starts at a wall may be stopped at once; nearly all others go where their label says.
    guessed = [DIRECTIONS.index(name) for name in map(_name, moved)]
    assert np.mean(np.array(guessed) == labels) > 0.8
    first = np.stack([i["video"][0, 0].float().numpy().ravel() for i in items])
    square = (first**2).sum(-1)
    distance = square[:, None] + square - 2 * first @ first.T + np.eye(600) * 1e12
    assert np.mean(labels[distance.argmin(1)] == labels) < 0.3  # the most frequent direction makes up a fifth


def _name(moved):
    across, down = (int(np.sign(v)) if abs(v) > 0.5 else 0 for v in moved)
    words = [{1: "down", -1: "up", 0: ""}[down], {1: "right", -1: "left", 0: ""}[across]]
    return " ".join(word for word in words if word) or "still"


@needs_digits
def test_digits_that_all_move():
    """The same clips as under the published rule, but for those that stand still there."""
    given = {"size": 16, "frames": 4, "train_clips": 200, "test_clips": 40, "labels": "motion"}
    usual, moving = MovingDigits(**given), MovingDigits(**given, still=False)
    assert moving.class_names == usual.class_names[1:] and usual.class_names[0] == "still"
    assert moving.fingerprint != usual.fingerprint
    found = 0
    for one, other in zip(usual.find_clips(), moving.find_clips(), strict=True):
        assert moving.scene(other).velocities.any()
        if usual.scene(one).velocities.any():
            assert np.array_equal(usual.scene(one).positions, moving.scene(other).positions)
            assert usual.class_names[one.label] == moving.class_names[other.label]
        else:
            found += 1
    assert found > 5


@needs_digits
def test_several_digits_have_captions_and_wrong_settings_are_named():
    module = MovingDigits(32, 4, digits=2, train_clips=4, test_clips=4)
    item = module.dataset("test")[0]
    assert "label" not in item and re.fullmatch(r"\d moving [a-z ]+ and \d moving [a-z ]+", item["text"])
    assert module.clip_spec.condition_keys == ("text",)
    both = MovingDigits(32, 4, labels="both", train_clips=4, test_clips=4)
    assert len(both.class_names) == 90
    assert both.class_names[both.index.records[0].label] == both.index.records[0].text
    for options, message in (({"size": 33}, "even size"), ({"size": 32, "digits": 0}, "digits must be at least 1")):
        with pytest.raises(UserError, match=message):
            MovingDigits(**{"frames": 4, **options})


def test_fresh_clips_differ_between_epochs_and_can_be_had_again(tiny_root):
    options = {"size": 32, "frames": 5, "train_clips": 6, "test_clips": 4, "batch_size": 3, "channels": 1}
    loaders = [MovingMNIST(str(tiny_root("MovingMNIST")), **options).train_dataloader() for _ in range(2)]
    first, second = ([b["video"] for b in loaders[0]] for _ in range(2))
    assert not torch.equal(first[0], second[0]) and first[0].shape == (3, 1, 5, 32, 32)
    again = [b["video"] for b in loaders[1]]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    module = MovingMNIST(str(tiny_root("MovingMNIST")), **{**options, "channels": 3})
    tests = [[b["video"] for b in module.test_dataloader()] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*tests, strict=True))
    fixed = MovingMNIST(str(tiny_root("MovingMNIST")), **options, fresh=False)
    assert (
        fixed.repeatable is False
        and MovingMNIST(str(tiny_root("MovingMNIST")), **options, fresh=False, sampling="first").repeatable
    )


def test_the_official_file(tiny_root, tmp_path):
    root = tiny_root("MovingMNIST")
    sequences = np.load(root / "mnist_test_seq.npy")
    module = MovingMNIST(str(root), 64, 20, variant="official", train_clips=5)
    assert sequences.shape[:2] == (20, 3) and len(module.index.of("test")) == 3
    for number in range(3):
        assert np.array_equal(module.dataset("test")[number]["video"][0].numpy(), sequences[:, number])
    item = module.dataset("train")[0]
    assert item["video"].shape == (3, 20, 64, 64) and item["text"]
    everything = MovingMNIST(str(root), 64, 16, preset="tgan")
    assert len(everything.dataset("train")) == 3 and everything.variant == "official"
    for broken, message in ((sequences.transpose(1, 0, 2, 3), "time first"), (None, "not a whole .npy")):
        copy = tmp_path / message.replace(" ", "_")
        copy.mkdir()
        for file in root.glob("*.gz"):
            (copy / file.name).write_bytes(file.read_bytes())
        if broken is None:
            (copy / "mnist_test_seq.npy").write_bytes((root / "mnist_test_seq.npy").read_bytes()[:5000])
        else:
            np.save(copy / "mnist_test_seq.npy", broken)
        with pytest.raises(UserError, match=message):
            _ = MovingMNIST(str(copy), 64, 16, variant="official").index


def test_idx_files_under_all_their_names(tiny_root, tmp_path):
    root = tiny_root("MovingMNIST")
    expected = read_idx(root, "t10k")
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in root.glob("*.gz"):
        (plain / file.stem.replace("-idx", ".idx")).write_bytes(gzip.decompress(file.read_bytes()))
    assert np.array_equal(read_idx(plain, "t10k").images, expected.images)
    raw = tmp_path / "set" / "MNIST" / "raw"  # where torchvision unpacks them
    raw.mkdir(parents=True)
    for file in root.glob("*.gz"):
        (raw / file.name).write_bytes(file.read_bytes())
    assert MovingMNIST(str(tmp_path / "set"), 32, 4, train_clips=4, test_clips=4).clip_spec.frames == 4
    cut = tmp_path / "cut"
    cut.mkdir()
    for file in root.glob("*.gz"):
        (cut / file.name).write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="cut off"):
        read_idx(cut, "train")
