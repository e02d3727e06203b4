"""The compact classifier on clips whose class is their motion, and the figures made with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vgen.metrics.detectors import CompactClassifier, accuracy, collect, repeat_first_frame, trained_classifier
from vgen.metrics.detectors.compact import TrainingSettings, train_classifier
from vgen.metrics.image_to_video import clip_seed, evaluate_image_to_video, requested_classes
from vgen.video import to_float, to_uint8

DIRECTIONS = {"right": (0, 1), "left": (0, -1), "down": (1, 0)}
SETTINGS = TrainingSettings(steps=120, batch=12, width=16, learning_rate=4e-3, shift=2)
FRAMES, SIDE = 6, 24


def move(pictures: Tensor, labels: Tensor) -> Tensor:
    """Clips (N, C, T, H, W) in which the picture (N, C, H, W) moves two pixels a frame, as its class says."""
    steps = list(DIRECTIONS.values())
    clips = [
        torch.stack([p.roll((2 * t * steps[k][0], 2 * t * steps[k][1]), (1, 2)) for t in range(FRAMES)], 1)
        for p, k in zip(pictures, labels.tolist(), strict=True)
    ]
    return torch.stack(clips)


def clips(n: int, seed: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, SIDE // 4, SIDE // 4, generator=chance) * 2 - 1
    labels = torch.arange(n) % len(DIRECTIONS)
    return to_uint8(move(small.repeat_interleave(4, 2).repeat_interleave(4, 3), labels)), labels


class Mover:
    """A model that moves the first frame as it is told, or with other faults."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.asked: list[tuple[list[int], list[int]]] = []

    def sample(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int | None = None,
        seeds: list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        self.asked.append((conditions["label"].tolist(), list(seeds or ())))
        assert conditions["text"] == [list(DIRECTIONS)[k] for k in conditions["label"].tolist()]
        assert conditions["image"].shape == (n, 3, SIDE, SIDE) and frames == FRAMES
        labels = conditions["label"] if self.fault != "ignores the class" else torch.zeros_like(conditions["label"])
        made = move(conditions["image"], labels)
        return repeat_first_frame(made) if self.fault == "still" else made

    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        video = batch["video"]
        assert video.is_floating_point()
        return repeat_first_frame(video) if self.fault == "still" else 0.95 * video


@pytest.fixture(scope="module")
def classifiers() -> tuple[CompactClassifier, CompactClassifier]:
    videos, labels = clips(72, 0)
    first = TrainingSettings(**{**vars(SETTINGS), "view": "first_frame", "steps": 15})
    return train_classifier(videos, labels, 3, SETTINGS), train_classifier(videos, labels, 3, first)


def held_out(batch: int = 10) -> list[dict[str, Any]]:
    videos, labels = clips(30, 1)
    paths = [f"s{i // 6}/c/{i}" for i in range(30)]
    return [
        {
            "video": videos[i : i + batch],
            "label": labels[i : i + batch],
            "subject": [path.split("/")[0] for path in paths[i : i + batch]],
            "path": [f"/somewhere/{path}" for path in paths[i : i + batch]],
            "frame_index": torch.arange(FRAMES).expand(batch, FRAMES),
        }
        for i in range(0, 30, batch)
    ]


LANDMARKS = {
    "size": SIDE,
    "clips": {
        f"s{i // 6}/c/{i}": [{"mouth": [4, 12, 20, 20], "left_eye": [2, 2, 8, 8], "right_eye": [14, 2, 20, 8]}] * FRAMES
        for i in range(30)
    },
}


def test_classifier_reads_motion_and_nothing_from_first_frames(
    classifiers: tuple[CompactClassifier, CompactClassifier],
) -> None:
    videos, labels = clips(60, 5)
    assert accuracy(classifiers[0], videos, labels) >= 0.9
    assert accuracy(classifiers[1], videos, labels, "first_frame") <= 0.55
    assert accuracy(classifiers[0], to_float(videos), labels) == accuracy(classifiers[0], videos, labels)


def test_first_frame_twin_reads_what_is_there() -> None:
    # The control only means something if the same training would find a class that the first frame shows.
    videos, labels = clips(42, 2)
    shown = (videos.float() * (0.3 + 0.35 * labels)[:, None, None, None, None]).to(torch.uint8)
    twin = train_classifier(shown[:30], labels[:30], 3, TrainingSettings(**{**vars(SETTINGS), "view": "first_frame"}))
    assert accuracy(twin, shown[30:], labels[30:], "first_frame") >= 0.75


def test_default_size_and_other_shapes() -> None:
    model = CompactClassifier(7)
    assert 100_000 <= sum(p.numel() for p in model.parameters()) <= 300_000
    for shape in ((1, 3, 16, 64, 64), (2, 3, 5, 30, 40), (1, 3, 1, 16, 16)):
        assert model(torch.zeros(shape)).shape == (shape[0], 7)


def test_training_repeats_and_leaves_the_random_state_alone() -> None:
    videos, labels = clips(6, 0)
    short = TrainingSettings(steps=2, batch=3, width=8)
    before = torch.get_rng_state()
    first, second = (train_classifier(videos, labels, 3, short) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_kept_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, labels = clips(6, 0)
    short = TrainingSettings(steps=2, batch=3, width=8)
    names = tuple(DIRECTIONS)
    first = trained_classifier(videos, labels, names, tmp_path, short)
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert record["clips"] == 6 and record["clips_per_class"] == [2, 2, 2] and record["settings"]["steps"] == 2

    def not_again(*_: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr("vgen.metrics.detectors.compact.train_classifier", not_again)
        second = trained_classifier(videos, labels, names, tmp_path, short)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
        with pytest.raises(AssertionError):
            trained_classifier(videos.flip(0), labels, names, tmp_path, short)
    next(tmp_path.glob("*.safetensors")).write_bytes(b"damaged")
    third = trained_classifier(videos, labels, names, tmp_path, short)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True))


def test_collect() -> None:
    videos, labels, subjects = collect(held_out(), 25)
    assert videos.shape[0] == 25 and len(labels) == 25 and subjects[-1] == "s4"


def test_figures_of_a_model_that_does_as_it_is_told(
    classifiers: tuple[CompactClassifier, CompactClassifier],
) -> None:
    model = Mover()
    result = evaluate_image_to_video(
        model, held_out(), tuple(DIRECTIONS), *classifiers, landmarks=LANDMARKS, clips=96, batch_size=7
    )
    figures = result["metrics"]
    assert set(figures) == {
        "psnr_gain_mean",
        "psnr_gain_mouth",
        "psnr_gain_eyes",
        "class_accuracy_ceiling",
        "classifier_accuracy_real",
        "classifier_accuracy_first_frame",
        "class_accuracy_generated",
        "motion_energy_ratio",
    }
    assert all(set(figure) == {"value", "low", "high", "n", "unit"} for figure in figures.values())
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures.values())
    assert figures["psnr_gain_mouth"]["low"] > 3 and figures["psnr_gain_mean"]["n"] == 30
    assert figures["class_accuracy_generated"]["value"] > 0.85 and figures["class_accuracy_generated"]["n"] == 96
    assert figures["motion_energy_ratio"]["value"] == pytest.approx(1, abs=0.1)
    assert figures["classifier_accuracy_first_frame"]["value"] < 0.6
    assert result["settings"]["clips_real"] == 30 and result["settings"]["subjects"] == 5
    json.dumps(result)
    labels = [label for asked in model.asked for label in asked[0]]
    seeds = [seed for asked in model.asked for seed in asked[1]]
    assert sorted(labels) == sorted([0, 1, 2] * 32) and len(set(seeds)) == 96

    again = Mover()
    same = evaluate_image_to_video(
        again, held_out(6), tuple(DIRECTIONS), *classifiers, landmarks=LANDMARKS, clips=96, batch_size=16
    )
    assert [s for a in again.asked for s in a[1]] == seeds and [s for a in again.asked for s in a[0]] == labels
    for name, figure in figures.items():
        assert same["metrics"][name]["value"] == pytest.approx(figure["value"], abs=1e-6)


def test_figures_of_models_with_faults(classifiers: tuple[CompactClassifier, CompactClassifier]) -> None:
    deaf = evaluate_image_to_video(Mover("ignores the class"), held_out(), tuple(DIRECTIONS), classifiers[0])
    assert deaf["metrics"]["class_accuracy_generated"]["high"] < 0.6
    assert "psnr_gain_mouth" not in deaf["metrics"]
    assert "classifier_accuracy_first_frame" not in deaf["metrics"]
    still = evaluate_image_to_video(Mover("still"), held_out(), tuple(DIRECTIONS), classifiers[0], landmarks=LANDMARKS)
    assert still["metrics"]["motion_energy_ratio"]["value"] == 0
    assert still["metrics"]["psnr_gain_mean"]["value"] == 0
    assert still["metrics"]["class_accuracy_ceiling"]["value"] < 0.6


def test_requested_classes_know_nothing_of_the_source() -> None:
    drawn = requested_classes(2100, 7, 0)
    assert torch.bincount(drawn).tolist() == [300] * 7
    assert float((drawn == torch.arange(2100) % 7).double().mean()) == pytest.approx(1 / 7, abs=0.04)
    assert torch.bincount(requested_classes(97, 7, 0), minlength=7).min() >= 13
    assert torch.equal(requested_classes(97, 7, 3), requested_classes(97, 7, 3))
    assert clip_seed(0, 1) != clip_seed(1, 0)
