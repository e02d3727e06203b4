"""Comparing two sets of clips: names, records, floor, cache, digits, and what is refused."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from tests.tiny_detector import Counting, TinyNet, moving_clips, tiny_detector
from vgen.errors import UserError
from vgen.metrics import Protocol
from vgen.metrics.detectors import Detector, Identity, SmallDetector
from vgen.metrics.detectors.image import ClipDetector
from vgen.metrics.distribution import FVD
from vgen.metrics.evaluation import compare
from vgen.metrics.pairs import compare_pairs
from vgen.metrics.perceptual import LPIPSDistance
from vgen.metrics.reading import to_pixels
from vgen.metrics.selection import Selection
from vgen.metrics.sources import TensorClips
from vgen.video import to_float

PROTOCOL = Protocol("tiny", 4, n_real=10, n_fake=8, metrics=("fvd", "kvd"))


@pytest.fixture(scope="module")
def real():
    return TensorClips(moving_clips(24, frames=9), data="drawn", split="train", settings={"resize": "none"})


@pytest.fixture(scope="module")
def fake():
    return TensorClips(moving_clips(8, seed=1, noise=0.6))


def run(real, fake, protocol=PROTOCOL, detector=None, **settings):
    return compare(real, fake, protocol, detectors={"i3d": detector or tiny_detector()}, **settings)


def test_a_record_says_everything(real, fake, tmp_path):
    record = run(real, fake)
    record.write(tmp_path / "record.json")
    stored = json.loads((tmp_path / "record.json").read_text())
    assert stored["protocol"] == "tiny" and set(stored["metrics"]) == {"frechet_small/tiny", "kernel_small/tiny"}
    metric, settings = stored["metrics"]["frechet_small/tiny"], stored["settings"]
    assert metric["n"] == 8 and metric["n_real"] == 10 and metric["detector"]["kind"] == "small"
    assert len(metric["detector"]["sha256"]) == 64
    assert 0 <= metric["floor"]["value"] < metric["value"]
    assert metric["floor"] == {**metric["floor"], "n_real": 10, "n_fake": 8, "sets": "disjoint videos"}
    assert settings["real"]["split"] == "train" and settings["real"]["settings"] == {"resize": "none"}
    assert (settings["real"]["filter"], settings["generated"]["filter"]) == ("none", "unknown")
    assert settings["real"]["fingerprint"] == real.fingerprint and len(settings["real"]["clip_lists"]) == 1
    assert settings["generated"]["clips"] == 8 and settings["generated"]["clip_shape"] == [3, 4, 12, 12]
    assert settings["protocol"] == {**PROTOCOL.to_dict()} and settings["seed"] == 0
    assert {"vgen", "torch", "torchmetrics"} <= set(settings["versions"])
    assert "below 2048" in stored["note"] and "no published number compares" in stored["note"]
    numbers = record.numbers()
    assert numbers["frechet_small_floor/tiny"] == metric["floor"]["value"]


@pytest.mark.parametrize(
    "kind, names", [("published", ("fvd", "kvd")), ("small", ("frechet_small", "kernel_small")),
                    ("random", ("frechet_random", "kernel_random"))]
)  # fmt: skip
def test_only_published_networks_give_published_names(real, fake, kind, names):
    record = run(real, fake, detector=Counting(kind), floor=False)
    assert set(record.metrics) == {f"{name}/tiny" for name in names}


def test_the_value_is_that_of_the_metric(real, fake):
    protocol = PROTOCOL.but(n_real=None, start_policy="first")
    metric, detector = FVD(), tiny_detector()
    metric.update(detector(real.videos[:, :, :4]), True)
    metric.update(detector(fake.videos[:, :, :4]), False)
    record = run(real, fake, protocol, floor=False)
    assert record.metrics[f"frechet_small/{protocol.name}"]["value"] == float(metric.compute())


def test_workers_change_no_digit_and_batches_none_of_the_first_six(real, fake):
    one = run(real, fake, batch=4).numbers()
    assert run(real, fake, batch=4, workers=3).numbers() == one
    for batch, inner in ((1, 4), (3, 5), (16, 16)):
        other = run(real, fake, batch=batch, detector=tiny_detector(inner)).numbers()
        assert other == pytest.approx(one, rel=1e-6)


def test_fewer_generated_clips_are_another_protocol(real, fake):
    record = run(real, fake, replace(PROTOCOL, n_fake=2048), floor=False)
    assert record.protocol == "tiny+n_fake=8" and "frechet_small/tiny+n_fake=8" in record.metrics
    assert any("takes 2048 generated clips, there are 8" in text for text in record.warnings)


def test_another_split_and_data_set(real, fake):
    protocol = replace(PROTOCOL, split="test", data={"Drawn": {"stride": 2}})
    record = run(real, fake, protocol, floor=False)
    assert any("split test, these are train" in text for text in record.warnings)
    assert record.settings["protocol"]["stride"] == 2 and record.protocol == "tiny"


def test_trials_are_averaged(real):
    fake = TensorClips(moving_clips(24, seed=1, noise=0.6))
    entry = run(real, fake, replace(PROTOCOL, trials=3), floor=False).metrics["frechet_small/tiny"]
    assert len(set(entry["trials"])) == 3
    assert entry["value"] == pytest.approx(sum(entry["trials"]) / 3) and entry["low"] < entry["value"] < entry["high"]
    shared = run(real, TensorClips(fake.videos[:8]), replace(PROTOCOL, trials=3), floor=False)
    assert any("share their generated clips" in text for text in shared.warnings)


def test_real_features_are_kept_and_the_key_knows_what_they_rest_on(real, fake, tmp_path):
    def passes(protocol=PROTOCOL, source=real, batch=4):
        detector = Counting(batch=batch)
        record = compare(source, fake, protocol, detectors={"i3d": detector}, cache=tmp_path, floor=False)
        return sum(detector.batches) // detector.batch, record.numbers()

    first, again = passes(), passes()
    assert (first[0], again[0]) == (5, 2) and first[1] == again[1]
    assert passes(replace(PROTOCOL, cov="biased"))[0] == 2  # the same features
    assert passes(replace(PROTOCOL, seed=1))[0] == 5
    assert passes(source=TensorClips(moving_clips(24, frames=9, seed=5)))[0] == 5
    assert passes(batch=2)[0] == 9
    (damaged,) = [path for path in tmp_path.glob("*.safetensors")][:1]
    described = json.loads(damaged.with_suffix(".json").read_text())
    assert {"detector", "source", "clip_list", "quantise", "versions"} <= set(described)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"damaged")
    assert passes() == first


def test_conditional_metrics_name_their_groups(real, fake):
    labels, subjects = [i % 2 for i in range(24)], ["ab"[i // 2 % 2] for i in range(24)]
    sides = [replace(side, labels=labels[: len(side)], subjects=subjects[: len(side)]) for side in (real, fake)]
    record = run(*sides, replace(PROTOCOL, n_real=None, metrics=("cfvd", "sfvd")))
    by_class = record.metrics["frechet_by_class_small/tiny"]
    assert set(by_class["per_group"]) == {"0", "1"} and "floor" in by_class
    assert by_class["value"] == pytest.approx(sum(by_class["per_group"].values()) / 2)
    assert set(record.metrics["frechet_by_subject_small/tiny"]["per_group"]) == {"a", "b"}
    with pytest.raises(UserError, match="sfvd needs the subjects of the real videos"):
        run(real, fake, replace(PROTOCOL, metrics=("sfvd",)))


class TinyClip(ClipDetector):
    """Stands for CLIP: frames and words land on the same axes, and no model is behind it."""

    def __init__(self):
        Detector.__init__(self, Identity("clip", "published", "0" * 64))
        self.tokenizer = object()

    def features(self, pixels):
        return pixels.mean((3, 4)).transpose(1, 2)

    def text(self, prompts, batch=64):
        return torch.stack([torch.eye(3)["rgb".index(prompt)] for prompt in prompts])


def test_clips_by_themselves(fake):
    colour = torch.zeros(8, 3, 4, 12, 12, dtype=torch.uint8)
    for i in range(8):
        colour[i, i % 3] = 200
    real = TensorClips(colour)
    protocol = Protocol("own", 4, n_fake=8, metrics=("clipsim", "clip_frame", "vb_temporal_flickering"))
    source = replace(real, texts=["rgb"[i % 3] for i in range(8)])
    record = compare(real, source, protocol, detectors={"clip": TinyClip()})
    assert record.metrics["clipsim/own"]["value"] == pytest.approx(1)
    assert record.metrics["clip_frame/own"]["value"] == pytest.approx(1)
    assert record.metrics["vb_temporal_flickering/own"]["value"] == 1
    assert "floor" not in record.metrics["clipsim/own"] and record.metrics["clipsim/own"]["low"] == pytest.approx(1)
    wrong = replace(source, texts=["rgb"[(i + 1) % 3] for i in range(8)])
    assert compare(real, wrong, protocol, ["clipsim"], {"clip": TinyClip()}).metrics["clipsim/own"]["value"] == 0
    with pytest.raises(UserError, match="clipsim needs the texts"):
        compare(real, real, protocol, detectors={"clip": TinyClip()})


def test_inception_score_reads_logits(real, fake):
    network = SmallDetector(TinyNet(5), "five")
    protocol = replace(PROTOCOL, metrics=("isv",), isv_splits=2)
    entry = compare(real, fake, protocol, detectors={"c3d": network}).metrics["inception_score_small/tiny"]
    assert 1 <= entry["value"] <= 5 and entry["std"] >= 0 and entry["n_real"] == 0 and "floor" not in entry


def test_reconstructions_are_compared_with_their_own_windows(real):
    made = TensorClips(real.videos.flip(0), names=list(real.ids)[::-1])
    protocol = replace(PROTOCOL, made="reconstructions", metrics=("rfvd",))
    record = run(real, made, protocol)
    entry = record.metrics["frechet_reconstruction_small/tiny"]
    assert abs(entry["value"]) < 1e-12 and entry["n"] == entry["n_real"] == 10
    for name in ("rfvd", "psnr/clip"):
        with pytest.raises(UserError, match=f"{name} compares reconstructions"):
            run(real, real, replace(PROTOCOL, metrics=(name,)))
    with pytest.raises(UserError, match="no reconstruction of that name"):
        run(real, TensorClips(real.videos[:3]), protocol)


def test_a_protocol_of_reconstructions_also_scores_pairs(real):
    made = TensorClips((real.videos.float() * 0.9).to(torch.uint8), names=real.ids)
    names = ("rfvd", "psnr/clip", "ssim/gaussian", "lpips/alex")
    protocol = replace(PROTOCOL, n_frames=6, made="reconstructions", metrics=names)
    sides = [replace(side, videos=side.videos.repeat(1, 1, 1, 4, 4)[:4]) for side in (real, made)]
    sides = [replace(side, names=list(real.ids)[:4]) for side in sides]
    told, distance = [], {"alex": LPIPSDistance("alex", random_init=True)}
    record = run(*sides, protocol, lpips=distance, batch=3, floor=False, progress=lambda *done: told.append(done))
    keys = ("frechet_reconstruction_small", "psnr/clip", "ssim/gaussian", "lpips_random/alex")
    assert list(record.metrics) == [f"{key}/tiny" for key in keys] and ("paired", 4, 4) in told
    selection = Selection(sides[0], protocol)
    windows = [[side.clip(c.video, c.frames) for c in selection.real()] for side in sides]
    whole = compare_pairs(*(TensorClips(clips) for clips in windows), names[1:], distance)
    for key, entry in whole.metrics.items():
        assert record.metrics[f"{key}/tiny"] == {**entry, "n_real": 4}
    rows = list(csv.DictReader(record.csv().splitlines()))
    assert [(row["metric"], row["protocol"]) for row in rows] == [(key, "tiny") for key in keys]
    assert [row["detector"] for row in rows[1:]] == ["pixels", "pixels", "lpips_alex"]
    assert record.numbers()["psnr/clip/tiny"] == whole.metrics["psnr/clip"]["value"]
    averaged = run(*sides, replace(protocol, n_real=2, trials=3, metrics=("psnr/clip",)), floor=False)
    entry = averaged.metrics["psnr/clip/tiny"]
    assert len(entry["trials"]) == 3 and entry["value"] == pytest.approx(sum(entry["trials"]) / 3)
    assert not averaged.warnings, "no distribution, and so no bias of few clips"


def test_pairs(real):
    made = TensorClips((real.videos.float() * 0.9).to(torch.uint8))
    names = ("psnr/frame", "psnr/clip", "ssim/gaussian", "lpips/alex")
    distance = LPIPSDistance("alex", random_init=True)
    large = [TensorClips(side.videos.repeat(1, 1, 1, 4, 4)[:3]) for side in (real, made)]
    record = compare_pairs(*large, names, {"alex": distance}, batch=2)
    assert set(record.metrics) == {"psnr/frame", "psnr/clip", "ssim/gaussian", "lpips_random/alex"}
    error = (large[0].videos.double() - large[1].videos.double()).div(255).square().flatten(1).mean(1)
    expected = (-10 * error.log10()).mean()
    assert record.metrics["psnr/clip"]["value"] == pytest.approx(float(expected), rel=1e-5)
    entry = record.metrics["psnr/frame"]
    assert entry["unit"] == "dB" and entry["n"] == 3 and entry["low"] <= entry["value"] <= entry["high"]
    with pytest.raises(UserError, match="no metric of pairs 'psnr'"):
        compare_pairs(real, made, ("psnr",))
    assert compare_pairs(real, real).metrics["psnr/frame"]["value"] == 100
    with pytest.raises(UserError, match="psnr/clip of equal clips or frames is infinite"):
        compare_pairs(real, real, ("psnr/clip",))
    with pytest.raises(UserError, match="21 videos without a counterpart"):
        compare_pairs(real, TensorClips(made.videos[:3]))


def test_floats_become_bytes_as_the_protocol_says(real, fake):
    values = torch.linspace(-1, 1, 1001)
    assert torch.equal(to_pixels(values), ((values + 1) * 127.5).round().to(torch.uint8))
    assert torch.equal(to_pixels(values, "trunc"), ((values + 1) * 127.5).to(torch.uint8))
    assert to_pixels(torch.tensor([-1.2, 0.5]), "none").tolist() == [0, 191.25]
    assert torch.equal(to_pixels(to_float(fake.videos)), fake.videos)
    floats = TensorClips(to_float(fake.videos))
    for quantise in ("round", "none"):
        same = run(real, floats, replace(PROTOCOL, quantise=quantise), floor=False).numbers()
        assert same == pytest.approx(run(real, fake, floor=False).numbers(), rel=1e-6)
    off = TensorClips(to_float(fake.videos) + 1.5 / 255)  # three quarters of a level
    values = [run(real, off, replace(PROTOCOL, quantise=way), floor=False).numbers() for way in ("round", "trunc")]
    assert values[0]["frechet_small/tiny"] != values[1]["frechet_small/tiny"]


@pytest.mark.parametrize(
    "change, what",
    [
        (lambda clips: clips[:0], "no video in the generated set"),
        (lambda clips: clips[:1], "one video only in the generated set"),
        (lambda clips: clips[:, :, :3], "has 3 frames, and tiny takes 4"),
        (lambda clips: clips[..., :10], "4 frames of 12x12 in 3 channels, generated ones 4 frames of 12x10"),
        (lambda clips: clips[:, :1], "in 1 channels"),
        (lambda clips: clips.to(torch.int32), "not torch.int32"),
        (lambda clips: clips.float(), "floats are in"),
        (lambda clips: clips[:, :, :, 0], r"expected \(1 or 3, 4, height, width\)"),
    ],
)
def test_sets_that_cannot_be_compared(real, fake, change, what):
    with pytest.raises(UserError, match=what):
        run(real, TensorClips(change(fake.videos)), PROTOCOL)


def test_frames_that_are_not_finite_are_named(real, fake):
    floats = to_float(fake.videos)
    floats[5, 1, 2, 0, 0] = float("nan")
    with pytest.raises(UserError, match="frame 2 is not finite") as raised:
        run(real, TensorClips(floats))
    assert "00000005" in raised.value.where
    mixed = [*fake.videos[:7], fake.videos[7, :, :, :8]]
    with pytest.raises(UserError, match="differing sizes"):
        run(real, TensorClips(mixed))


def test_a_network_that_needs_more_frames_is_asked_first(real, fake):
    with pytest.raises(UserError, match="too short: counting needs at least 9"):
        run(real, fake, detector=Counting(least_frames=9))


def test_a_missing_network_is_an_error_and_never_a_random_one(real, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("VGEN_DETECTORS", str(tmp_path))
    with pytest.raises(UserError, match=r"i3d_torchscript\.pt or i3d_pretrained_400\.pt") as raised:
        compare(real, fake, PROTOCOL)
    assert "stylegan-v" in raised.value.hint and str(tmp_path) in raised.value.where
    with pytest.raises(UserError, match="no metric 'fdv'") as raised:
        compare(real, fake, PROTOCOL, ["fdv"])
    assert "fvd" in raised.value.hint
