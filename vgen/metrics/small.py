"""`frechet_small`: a Fréchet distance on the compact classifier of a labelled set's own classes.

    detector = small_detector(train, held_out, class_names, frames=16, folder="runs/judge")
    judge = Judge(detector, real, other_real)
    judge.scores(generated, labels)["frechet_small"]          # value, floor, detector with its held-out accuracy

It stands where the published detectors do not: small sizes, drawn clips, no file to download. Its features are what the
scores of the classes are read from, so that it sees what tells the set's classes apart, and not much else. As a
detector it also serves `compare(..., detectors={"i3d": detector})`. Training and features run on the CPU with one
thread, whatever the process is allowed: the same data and settings give the same bits.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.metrics.bootstrap import frechet_interval
from vgen.metrics.catalogue import METRICS
from vgen.metrics.control import ClassControl
from vgen.metrics.detectors.base import SmallDetector
from vgen.metrics.detectors.compact import (
    CompactClassifier,
    TrainingSettings,
    classify,
    keep_classifier,
    load_classifier,
    train_classifier,
)
from vgen.metrics.distribution import FVD
from vgen.metrics.diversity import Diversity
from vgen.metrics.features import Features
from vgen.metrics.record import described
from vgen.metrics.sources import ClipSource

THREADS = 1  # sums are rounded in the order of the threads: another number gives other last digits


def small_detector(
    train: ClipSource,
    held_out: ClipSource,
    class_names: Sequence[str],
    frames: int,
    folder: str | Path,
    settings: TrainingSettings | None = None,
    clips: int = 1000,
    batch: int = 16,
) -> SmallDetector:
    """Opens the detector of a labelled set in a folder, or trains it and keeps it there.

    Files: `frechet_small_<key>.safetensors`, and a `.json` with everything the key covers (fingerprints of both sets,
    classes, settings, threads, version of torch) and the accuracy on held-out clips. Where they are there, one frame is
    read and nothing trained.

    Args:
        train: Clips that the classifier learns from.
        held_out: Clips of the same classes that it is judged on.
        class_names: Name of each class.
        frames: It sees the first T frames of each video.
        folder: Where detectors are kept.
        settings: Of its training; None takes the defaults.
        clips: Most clips of each set, spread evenly over it.
        batch: Clips in each pass of the detector.

    Returns:
        The detector, whose `identity.settings` say what it was trained on and how well it reads held-out clips.

    Raises:
        UserError: The clips have no classes, or one class only; a video is too short.
    """
    settings = settings or TrainingSettings()
    if len(class_names) < 2 or train.labels is None or held_out.labels is None:
        found = "one class only" if len(class_names) == 1 else "no classes"
        raise UserError(f"frechet_small rests on a classifier, and the clips have {found}", where=train.data or "data")
    if (shortest := min(*train.lengths, *held_out.lengths)) < frames:
        raise UserError(
            f"a video has {shortest} frames, and the detector is to see {frames}", where=train.data or "data"
        )
    key = {
        "train": {**described(train), "videos": len(train)},
        "held_out": {**described(held_out), "videos": len(held_out)},
        "class_names": list(class_names),
        "frames": frames,
        "clips": clips,
        "settings": asdict(settings),
        "threads": THREADS,
        "torch": torch.__version__,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = Path(folder) / f"frechet_small_{name}.safetensors"
    channels = train.clip(0, [0]).shape[0]
    network = CompactClassifier(len(class_names), settings.width, channels)
    facts = _read(path.with_suffix(".json"))
    if facts is None or not load_classifier(network, path):
        with fixed_threads():
            network = train_classifier(*_clips(train, frames, clips), len(class_names), settings)
            accuracy = _accuracy(network, held_out, frames, clips)
        facts = {"held_out_accuracy": accuracy, "chance": 1 / len(class_names), **key}
        keep_classifier(network, path, facts)
    return SmallDetector(network, "compact", channels, batch, facts)


class Judge:
    """What clips of one data set are measured with.

    Args:
        detector: Of `small_detector`.
        real: (N, C, T, H, W) uint8, the clips that others are compared with.
        other_real: (M, C, T, H, W) uint8, further real clips: their distance is the floor.
    """

    def __init__(self, detector: SmallDetector, real: Tensor, other_real: Tensor) -> None:
        self.detector = detector
        self.real = self._features(real)
        self.name = METRICS["fvd"].called(detector.identity.kind)
        floor = float(FVD().score(self.real, self._features(other_real)))
        self.floor = {"value": floor, "n_real": len(real), "n_fake": len(other_real), "sets": "disjoint videos"}
        self.real_diversity = float(Diversity().score(None, self.real))

    def scores(
        self, videos: Tensor, labels: Tensor | None = None, subjects: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Measures a set of clips.

        Args:
            videos: (n, C, T, H, W) uint8.
            labels: (n,) the class that each is to show; None leaves the accuracy out.
            subjects: Subject of each, for the interval of the accuracy.

        Returns:
            `frechet_small` (with its 95 % bootstrap interval and its floor), `diversity` (with that of the real clips)
            and `class_accuracy` (with its 95 % bootstrap interval and chance), as the entries of an evaluation record.
        """
        features = self._features(videos)
        count, network = {"n": len(videos), "unit": ""}, self.detector.network
        assert isinstance(network, CompactClassifier)
        low, high = frechet_interval(self.real.values, features.values)
        found: dict[str, dict[str, Any]] = {
            self.name: {
                "value": float(FVD().score(self.real, features)),
                "low": low,
                "high": high,
                **count,
                "n_real": len(self.real),
                "floor": self.floor,
                "detector": self.detector.identity.to_dict(),
            },
            "diversity": {"value": float(Diversity().score(None, features)), **count, "real": self.real_diversity},
        }
        if labels is not None:
            control = ClassControl()
            with torch.no_grad(), fixed_threads():
                control.update(network.head(features.values), labels, subjects)
            found["class_accuracy"] = {**_share(control), "unit": "share", "chance": 1 / network.head.out_features}
        return found

    def _features(self, videos: Tensor) -> Features:
        with fixed_threads():
            return Features.of(self.detector(videos))


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Lets torch compute with `THREADS` threads, so that results do not depend on the process's own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _clips(source: ClipSource, frames: int, most: int) -> tuple[Tensor, Tensor]:
    """At most so many clips of a source, spread evenly: (N, C, T, H, W) uint8 and their labels."""
    count = min(most, len(source))
    numbers = [i * len(source) // count for i in range(count)]
    videos = torch.stack([source.clip(number, range(frames)) for number in numbers])
    assert source.labels is not None
    return videos, torch.tensor([source.labels[number] for number in numbers])


def _accuracy(network: CompactClassifier, held_out: ClipSource, frames: int, most: int) -> dict[str, Any]:
    videos, labels = _clips(held_out, frames, most)
    control = ClassControl()
    control.update(classify(network, videos), labels)
    return _share(control)


def _share(control: ClassControl) -> dict[str, Any]:
    low, high = control.interval()
    assert control.clip_values is not None
    return {"value": float(control.compute()), "low": low, "high": high, "n": len(control.clip_values)}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(facts) if "held_out_accuracy" in facts else None
    except (OSError, ValueError, TypeError):
        return None
