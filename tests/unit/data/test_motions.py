"""Camera motions cut from videos."""

import json

import numpy as np
import pytest

from vgen.data.datamodules import Folder
from vgen.data.motions import MOTIONS, _centres, find_regions, make_motions, render, split_scenes
from vgen.errors import UserError
from vgen.video.io import encode, read_frames


def texture(frames, height, width, seed=0):
    """A still picture with detail at several scales."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for step in (4, 8, 16):
        coarse = rng.uniform(0, 85, (height // step + 1, width // step + 1, 3))
        picture += coarse.repeat(step, 0).repeat(step, 1)[:height, :width]
    return np.repeat(picture.astype(np.uint8)[None], frames, axis=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    encode(folder / "wide.mp4", np.concatenate([texture(10, 96, 240, 1), texture(14, 96, 240, 2)]), 10)
    counts = make_motions([folder / "wide.mp4"], folder / "set", size=32, frames=8)
    return folder / "set", counts


def test_all_motions_start_with_the_same_frame():
    pictures = texture(8, 96, 240)
    region = find_regions(pictures, 32, 4)[0]
    clips = {name: render(pictures, region, name, 32, 4) for name in MOTIONS}
    for name, clip in clips.items():
        assert np.array_equal(clip[0], clips["pan_left"][0])
        for other in set(MOTIONS) - {name}:
            assert np.abs(clip[-1].astype(int) - clips[other][-1]).mean() > 3
    # The camera going left shows what was on the left: the picture moves right.
    shift = round(0.32 * 32)
    assert np.abs(clips["pan_left"][-1][:, shift:].astype(int) - clips["pan_left"][0][:, :-shift]).mean() < 12


def test_counts_and_layout(made):
    root, counts = made
    assert set(counts) == {f"{split}/{name}" for split in ("train", "test") for name in MOTIONS}
    assert len({v for k, v in counts.items() if k.startswith("train")}) == 1
    assert json.loads((root / "motions.json").read_text())["counts"] == counts
    module = Folder(str(root), 32, 8)
    assert module.clip_spec.class_names == tuple(sorted(MOTIONS))
    assert len(module.index.of("train")) == counts["train/zoom_in"] * len(MOTIONS)
    regions = {r.subject for r in module.index.of("train")}
    assert len(regions) == counts["train/zoom_in"] and not regions & {r.subject for r in module.index.of("test")}
    first = [read_frames(root / "test" / name / "wide_0001.mp4", [0]) for name in MOTIONS
             if (root / "test" / name / "wide_0001.mp4").exists()]  # fmt: skip
    assert all(np.abs(f.astype(int) - first[0]).mean() < 3 for f in first)


def test_sets_are_apart_and_clips_inside_the_picture():
    pictures = texture(24, 96, 240)
    regions = find_regions(pictures, 32, 8)
    reach = 0.5 + 0.32 * 1.15
    right = [r.x + reach * r.side for r in regions if r.split == "train"]
    left = [r.x - reach * r.side for r in regions if r.split == "test"]
    assert left and right and max(right) <= min(left)
    for r in regions:
        assert r.x - reach * r.side >= -1e-6 and r.y - reach * r.side >= -1e-6
        assert r.x + reach * r.side <= 240 + 1e-6 and r.y + reach * r.side <= 96 + 1e-6
    # Too narrow for two halves: apart in time, with a gap.
    narrow = find_regions(texture(40, 64, 64), 32, 8)
    train = [r.start + 8 for r in narrow if r.split == "train"]
    test = [r.start for r in narrow if r.split == "test"]
    assert train and test and max(train) + 8 <= min(test) + 8 and max(train) <= 40 * 0.7 - 8 and min(test) >= 40 * 0.7


def test_cuts_end_clips_and_flat_regions_are_left_out():
    grey = np.concatenate([texture(10, 96, 120, 1), texture(14, 96, 120, 2)]).mean(-1, dtype=np.float32)
    assert split_scenes(grey) == [(0, 10), (10, 24)]
    pictures = np.concatenate([texture(10, 96, 240, 1), texture(14, 96, 240, 2)])
    assert all(r.start + 8 <= 10 or r.start >= 10 for r in find_regions(pictures, 32, 8))
    assert find_regions(np.full((20, 96, 240, 3), 90, np.uint8), 32, 8) == []


def test_pictures_that_move_by_themselves_are_left_out():
    still = texture(1, 96, 320)[0]
    moving = np.stack([still[:, 4 * t : 4 * t + 240] for t in range(16)])
    assert find_regions(np.repeat(still[None, :, :240], 16, 0), 32, 16)
    assert find_regions(moving, 32, 16) == []


def test_same_seed_same_bytes_and_mistakes_are_named(made, tmp_path):
    root, _ = made
    source = root.parent / "wide.mp4"
    make_motions([source], tmp_path / "again", size=32, frames=8)
    for path in sorted(root.rglob("*.mp4"))[:12]:
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(root)).read_bytes()
    with pytest.raises(UserError, match="not empty"):
        make_motions([source], tmp_path / "again", size=32, frames=8)
    with pytest.raises(UserError, match="same name"):
        make_motions([source, source], tmp_path / "two", size=32, frames=8)
    with pytest.raises(UserError, match="no region"):
        make_motions([source], tmp_path / "three", size=200, frames=8)


def test_centres_fit():
    assert _centres(0, 10, 4) == [2.5, 7.5]
    assert _centres(0, 3, 4) == []
