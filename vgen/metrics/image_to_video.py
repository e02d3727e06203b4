"""The figures of an image-to-video model on small clips: what it reconstructs, and whether it does as it is told.

These are no published protocol: they hold for data whose classes a compact classifier can read, such as fake data,
and say on a few dozen clips whether a model learned motion (gain over a still picture, motion energy) and control
(the requested class is read from generated clips of unseen persons).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgen.metrics.control import ClassControl
from vgen.metrics.detectors.compact import classify
from vgen.metrics.motion import MotionEnergy
from vgen.metrics.per_clip import PerClipMetric
from vgen.metrics.reconstruction import ReconstructionGain, landmark_boxes
from vgen.video import Reconstructs, Samples, to_float

Batch = dict[str, Any]
CROPS: dict[str, tuple[str, ...]] = {"mouth": ("mouth",), "eyes": ("left_eye", "right_eye")}


@torch.no_grad()
def evaluate_image_to_video(
    model: Samples,
    test: Iterable[Mapping[str, Any]],
    class_names: Sequence[str],
    classifier: nn.Module,
    first_frame_classifier: nn.Module | None = None,
    decode_real: Callable[[Batch], Tensor] | None = None,
    landmarks: dict[str, Any] | None = None,
    clips: int = 96,
    seed: int = 0,
    batch_size: int = 16,
    options: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Measures a model on held-out clips.

    Real clips are each used once. Where the test set is smaller than `clips`, generation takes its first frames in
    turn, with other classes and seeds. Every class is requested equally often, in a shuffled order that knows
    nothing of the source clip's own class.

    Args:
        model: Generates clips from `{"image": (n, C, H, W) in [-1, 1], "label": (n,) int64, "text": class names}`.
        test: Batches of held-out clips with `video` (uint8 or in [-1, 1]) and `label`; `subject`, `path` and
            `frame_index` where the data has them. A loader, or any list of batches.
        class_names: Names by label index.
        classifier: Reads classes from clips in [-1, 1]; trained on the training subjects' real clips.
        first_frame_classifier: Its twin that was trained on repeated first frames; None leaves that figure out.
        decode_real: Decodes the real clips' own latents (for a flow model, their real flows) to (B, C, T, H, W);
            None takes `model.reconstruct`, and leaves the figures of reconstruction out where there is none.
        landmarks: Boxes of mouth and eyes; see `landmark_boxes`. None leaves the figures of crops out.
        clips: Number of real clips (at most) and of generated clips.
        seed: Decides requested classes, noise of the generated clips and bootstrap.
        batch_size: Clips at once.
        options: Sampler settings passed to `model.sample`.
        device: Where the model is.

    Returns:
        An evaluation record: `protocol`, `metrics` (name -> value, low, high (95 % bootstrap over subjects), n, unit),
        `settings`, `note`.
    """
    if decode_real is None and isinstance(model, Reconstructs):
        decode_real = model.reconstruct
    batches = list(_take(test, clips, batch_size))
    metrics: dict[str, dict[str, Any]] = {}
    if decode_real is not None:
        metrics.update(_reconstruction(batches, decode_real, classifier, landmarks, device, seed))
    metrics.update(_reading_of_real_clips(batches, classifier, first_frame_classifier, device, seed))
    metrics.update(_generation(model, batches, class_names, classifier, clips, seed, batch_size, options, device))
    subjects = {name for batch in batches for name in batch.get("subject") or () if name}
    found = sum(len(batch["video"]) for batch in batches)
    return {
        "protocol": "image_to_video/compact",
        "metrics": metrics,
        "settings": {
            "clips_generated": clips,
            "clips_real": found,
            "subjects": len(subjects),
            "classes": list(class_names),
            "chance": 1 / len(class_names),
            "clip_shape": list(batches[0]["video"].shape[1:]),
            "seed": seed,
            "options": options or {},
        },
        "note": "Held-out clips; classes read by a compact classifier trained on the training clips. Intervals: 95 % "
        "bootstrap over subjects. No published protocol.",
    }


def _take(test: Iterable[Mapping[str, Any]], clips: int, batch_size: int) -> Iterable[Batch]:
    """Yields batches of at most `batch_size`, `clips` clips in all, of those that are there."""
    left = clips
    for whole in test:
        size = len(whole["video"])
        for start in range(0, size, batch_size):
            stop = min(start + batch_size, size, start + left)
            if stop <= start:
                return
            left -= stop - start
            yield {key: _part(value, size, start, stop) for key, value in whole.items()}
    if left == clips:
        raise ValueError("the test loader yields no clips")


def _part(value: Any, size: int, start: int, stop: int) -> Any:
    per_clip = isinstance(value, Tensor | list | tuple) and not (isinstance(value, Tensor) and value.dim() == 0)
    return value[start:stop] if per_clip and len(value) == size else value


def _on_device(batch: Batch, device: torch.device | str) -> Batch:
    """Moves tensors, and makes the video float as the models want it."""
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    if moved["video"].dtype == torch.uint8:
        moved["video"] = to_float(moved["video"])
    return moved


def _reconstruction(
    batches: list[Batch],
    decode_real: Callable[[Batch], Tensor],
    classifier: nn.Module,
    landmarks: dict[str, Any] | None,
    device: torch.device | str,
    seed: int,
) -> dict[str, dict[str, Any]]:
    whole, ceiling = ReconstructionGain().to(device), ClassControl().to(device)
    crops = {name: ReconstructionGain().to(device) for name in CROPS} if landmarks is not None else {}
    for batch in batches:
        batch = _on_device(batch, device)
        video, subjects = batch["video"], batch.get("subject")
        made = decode_real(batch).clamp(-1, 1)
        whole.update(made, video, groups=subjects)
        ceiling.update(classify(classifier, made), batch["label"], subjects)
        for name, metric in crops.items():
            assert landmarks is not None
            boxes, rows = landmark_boxes(
                landmarks,
                batch.get("path") or [],
                batch.get("frame_index"),
                video.shape[2],
                CROPS[name],
                (video.shape[3], video.shape[4]),
            )
            if rows:
                chosen = None if subjects is None else [subjects[row] for row in rows]
                metric.update(made[rows], video[rows], boxes, chosen)
    figures = {"psnr_gain_mean": _record(whole, "dB", seed)}
    figures.update(
        {f"psnr_gain_{name}": _record(metric, "dB", seed) for name, metric in crops.items() if metric.values}
    )
    figures["class_accuracy_ceiling"] = _record(ceiling, "share", seed)
    return figures


def _reading_of_real_clips(
    batches: list[Batch],
    classifier: nn.Module,
    first_frame_classifier: nn.Module | None,
    device: torch.device | str,
    seed: int,
) -> dict[str, dict[str, Any]]:
    real, first = ClassControl().to(device), ClassControl().to(device)
    for batch in batches:
        batch = _on_device(batch, device)
        real.update(classify(classifier, batch["video"]), batch["label"], batch.get("subject"))
        if first_frame_classifier is not None:
            scores = classify(first_frame_classifier, batch["video"], "first_frame")
            first.update(scores, batch["label"], batch.get("subject"))
    figures = {"classifier_accuracy_real": _record(real, "share", seed)}
    if first_frame_classifier is not None:
        figures["classifier_accuracy_first_frame"] = _record(first, "share", seed)
    return figures


def _generation(
    model: Samples,
    batches: list[Batch],
    class_names: Sequence[str],
    classifier: nn.Module,
    clips: int,
    seed: int,
    batch_size: int,
    options: dict[str, Any] | None,
    device: torch.device | str,
) -> dict[str, dict[str, Any]]:
    videos = torch.cat([batch["video"] for batch in batches])
    subjects = [name for batch in batches for name in batch.get("subject") or [None] * len(batch["video"])]
    requested = requested_classes(clips, len(class_names), seed)
    control, energy = ClassControl().to(device), MotionEnergy().to(device)
    for start in range(0, clips, batch_size):
        numbers = range(start, min(start + batch_size, clips))
        sources = [number % len(videos) for number in numbers]
        real = videos[sources].to(device)
        real = to_float(real) if real.dtype == torch.uint8 else real
        labels = requested[start : start + len(sources)].to(device)
        conditions = {
            "image": real[:, :, 0],
            "label": labels,
            "text": [class_names[label] for label in labels.tolist()],
        }
        seeds = [clip_seed(seed, number) for number in numbers]
        made = model.sample(conditions, len(sources), frames=real.shape[2], seeds=seeds, options=options)
        made = made.to(device).clamp(-1, 1)
        names = None if None in subjects else [str(subjects[source]) for source in sources]
        control.update(classify(classifier, made), labels, names)
        energy.update(made, real, names)
    low, high = energy.interval(seed=seed)
    return {
        "class_accuracy_generated": _record(control, "share", seed),
        "motion_energy_ratio": {
            "value": float(energy.compute()),
            "low": low,
            "high": high,
            "n": clips,
            "unit": "ratio",
        },
    }


def requested_classes(n: int, classes: int, seed: int) -> Tensor:
    """Draws n class indices (n,) int64: every class equally often (but for the rest), in shuffled order."""
    chance = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(classes, generator=chance) for _ in range(-(-n // classes))]
    drawn = torch.cat(rounds)[:n]
    return drawn[torch.randperm(n, generator=chance)]


def clip_seed(seed: int, number: int) -> int:
    """Seed of the noise of one generated clip; the seeds of two evaluations do not overlap."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest(), "little") >> 1


def _record(metric: PerClipMetric, unit: str, seed: int) -> dict[str, Any]:
    value = float(metric.compute())
    low, high = metric.interval(seed=seed)
    assert metric.clip_values is not None
    return {"value": value, "low": low, "high": high, "n": len(metric.clip_values), "unit": unit}
