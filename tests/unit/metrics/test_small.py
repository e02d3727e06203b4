"""frechet_small: the detector of a labelled set, and what is read from it."""

import json

import pytest
import torch

from tests.tiny_detector import TinyNet
from vgen.errors import UserError
from vgen.metrics import FVD, Diversity
from vgen.metrics.detectors import SmallDetector
from vgen.metrics.detectors.compact import TrainingSettings
from vgen.metrics.evaluation import compare
from vgen.metrics.features import Features
from vgen.metrics.protocols import Protocol
from vgen.metrics.small import THREADS, Judge, small_detector
from vgen.metrics.sources import TensorClips

NAMES = ("right", "left", "down")
STEPS = ((0, 2), (0, -2), (2, 0))
SETTINGS = TrainingSettings(steps=60, batch=12, width=16, learning_rate=4e-3, shift=1)
FRAMES = 5


def clips(n, seed):
    """Pictures that move as their class says, (n, 3, 5, 16, 16) uint8."""
    chance = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (n, 3, 4, 4), generator=chance, dtype=torch.uint8)
    pictures = pictures.repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = torch.arange(n) % 3
    moved = [
        torch.stack([p.roll((t * STEPS[k][0], t * STEPS[k][1]), (1, 2)) for t in range(FRAMES)], 1)
        for p, k in zip(pictures, labels.tolist(), strict=True)
    ]
    return torch.stack(moved), labels


def source(n, seed, **changes):
    videos, labels = clips(n, seed)
    return TensorClips(videos, labels.tolist(), data="moving", **changes)


def open_it(folder, settings=SETTINGS, **changes):
    train, held_out = source(60, 0), source(30, 1)
    return small_detector(train, held_out, NAMES, FRAMES, folder, settings, **changes)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return open_it(tmp_path_factory.mktemp("judge"))


def test_the_detector_says_what_it_is_and_how_well_it_reads(detector):
    facts = detector.identity.settings
    assert detector.identity.kind == "small" and facts["class"] == "CompactClassifier"
    assert facts["held_out_accuracy"]["value"] > 0.8 and facts["held_out_accuracy"]["n"] == 30
    assert facts["held_out_accuracy"]["low"] <= facts["held_out_accuracy"]["value"] and facts["threads"] == THREADS
    assert facts["chance"] == pytest.approx(1 / 3) and facts["train"]["fingerprint"] == source(60, 0).fingerprint


def test_the_same_bits_whatever_the_process_is_allowed(tmp_path, monkeypatch):
    short = TrainingSettings(steps=3, batch=6, width=8)
    first = open_it(tmp_path / "a", short)
    torch.set_num_threads(2)
    try:
        second = open_it(tmp_path / "b", short)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert first.identity == second.identity

    def not_again(*_):
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr("vgen.metrics.small.train_classifier", not_again)
        kept = open_it(tmp_path / "a", short)
        assert json.dumps(kept.identity.to_dict()) == json.dumps(first.identity.to_dict())
        for changes in ({"settings": TrainingSettings(steps=4, batch=6, width=8)}, {"settings": short, "clips": 40}):
            with pytest.raises(AssertionError):
                open_it(tmp_path / "a", **changes)
    next((tmp_path / "a").glob("*.json")).write_text("{}")
    assert open_it(tmp_path / "a", short).identity == first.identity


def test_the_distance_orders_what_is_wrong(detector):
    (real, _), (other, labels) = clips(60, 2), clips(60, 3)
    judge = Judge(detector, real, other)
    frozen = other[:, :, :1].expand_as(other).contiguous()
    noisy = (other.float() + 60 * torch.randn(other.shape)).clamp(0, 255).to(torch.uint8)
    found = {name: judge.scores(v, labels) for name, v in (("real", other), ("noisy", noisy), ("frozen", frozen))}
    distance = {name: scores["frechet_small"]["value"] for name, scores in found.items()}
    assert distance["real"] < distance["noisy"] < distance["frozen"]
    entry = found["real"]["frechet_small"]
    assert entry["value"] == entry["floor"]["value"] and entry["floor"]["sets"] == "disjoint videos"
    assert entry["n"] == entry["n_real"] == 60 and entry["detector"]["settings"]["held_out_accuracy"]["n"] == 30
    accuracy = {name: scores["class_accuracy"]["value"] for name, scores in found.items()}
    assert accuracy["real"] > 0.8 > accuracy["frozen"] and found["real"]["class_accuracy"]["low"] <= accuracy["real"]
    same = judge.scores(other[:1].expand(4, -1, -1, -1, -1))
    assert same["diversity"]["value"] < 1e-5 < found["real"]["diversity"]["value"]
    assert "class_accuracy" not in same


def test_the_number_is_that_of_the_framework(detector):
    """The judge gives what `compare` gives, under the same name."""
    real, other = clips(20, 2)[0], clips(20, 3)[0]
    protocol = Protocol("mine", n_frames=FRAMES, n_real=None, n_fake=None, start_policy="first")
    record = compare(TensorClips(real), TensorClips(other), protocol, ["fvd"], {"i3d": detector}, floor=False)
    ours = Judge(detector, real, other).scores(other)["frechet_small"]["value"]
    assert record.numbers() == {"frechet_small/mine": pytest.approx(ours, rel=1e-6)}


def test_what_cannot_be_judged(tmp_path):
    with pytest.raises(UserError, match="one class only"):
        small_detector(source(4, 0), source(4, 1), ("one",), FRAMES, tmp_path)
    unlabelled = TensorClips(clips(4, 0)[0])
    with pytest.raises(UserError, match="no classes"):
        small_detector(unlabelled, unlabelled, NAMES, FRAMES, tmp_path)
    with pytest.raises(UserError, match="5 frames, and the detector is to see 6"):
        small_detector(source(4, 0), source(4, 1), NAMES, FRAMES + 1, tmp_path)


def test_diversity_is_the_mean_over_pairs():
    metric = Diversity()
    values = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    metric.update(values, real=False)
    expected = (5 + 1 + 18**0.5) / 3
    assert float(metric.compute()) == pytest.approx(expected)
    assert float(metric.score(None, Features.of(values.flip(0)))) == pytest.approx(expected)
    with pytest.raises(UserError, match="at least 2"):
        metric.score(None, Features.of(values[:1]))


def test_settings_of_a_small_detector_are_part_of_its_identity():
    plain, told = SmallDetector(TinyNet()), SmallDetector(TinyNet(), settings={"held_out_accuracy": 0.5})
    assert plain.identity.sha256 == told.identity.sha256 and told.identity.settings["held_out_accuracy"] == 0.5
    assert plain.identity != told.identity and FVD().least_clips == 2
