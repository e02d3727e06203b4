"""`vgen evaluate RUN` without a protocol: measure an image-to-video run on held-out clips of its data.

Reconstruction against a still picture, motion against real clips, and how often a compact classifier (trained on the
run's own training clips) reads the requested class. No published protocol: see docs/evaluation.md.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vgen.cli.trained import Trained, model_inputs, open_data, open_trained, option_texts, read_options
from vgen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from vgen.data.datamodules import VideoDataModule

CLIPS = 112
_READS_WELL = 0.9  # below that, figures made with the classifier say more about it than about the model


class _Clock:
    """Wall time of named parts, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a part."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def rounded(self) -> dict[str, float]:
        """The parts, to a tenth of a second."""
        return {name: round(value, 1) for name, value in self.seconds.items()}


class _Timed:
    """The model, timed and with a line of progress for each batch."""

    def __init__(self, model: Any, clock: _Clock, clips: int) -> None:
        self.model, self.clock, self.clips, self.done = model, clock, clips, 0

    def sample(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int | None = None,
        seeds: list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> "Tensor":
        """See `vgen.video.Samples`."""
        with self.clock.part("generation"):
            try:
                made: Tensor = self.model.sample(conditions, n, frames=frames, seeds=seeds, options=options)
            except ValueError as error:
                if options:  # samplers say by it which value of an option they do not take
                    raise UserError(str(error), "--option") from error
                raise
        self.done += n
        each = self.clock.seconds["generation"] / self.done
        print(f"[evaluate] {self.done}/{self.clips} clips generated  {each:.2f} s each", flush=True)
        return made

    def decode_real(self, batch: dict[str, Any]) -> "Tensor":
        """The model's own reconstruction of real clips."""
        with self.clock.part("reconstruction"):
            made: Tensor = self.model.reconstruct(batch)
        return made


def run(args: argparse.Namespace) -> int:
    """Measures, writes the result and prints a table.

    Raises:
        UserError: The model makes no videos from images, or its data has no classes or is not there.
    """
    from vgen.files import write_json

    args.clips = CLIPS if args.clips is None else args.clips
    if min(args.clips, args.batch, args.classifier_clips, args.classifier_steps) < 1:
        raise UserError("--clips, --batch, --classifier-clips and --classifier-steps must be at least 1")
    options = read_options(args.option)
    trained = open_trained(args)
    _check_model(trained)
    clock = _Clock()
    with clock.part("all"):
        result = _evaluate(args, trained, options, clock)
    result["settings"] |= _settings(args, trained, clock)
    path = trained.folder / "evaluation" / f"{args.name or 'image_to_video'}.json"
    write_json(path, result)
    print("\n".join(table(result)))
    print(f"written to {path}")
    return 0


def _check_model(trained: Trained) -> None:
    from vgen.video import Samples

    model, where = trained.model, str(trained.file.path)
    if not (isinstance(model, Samples) and "image" in model_inputs(model)):
        what = f"{type(model).__name__} makes no videos from a first frame: nothing to evaluate here"
        hint = "for a run of several stages, name the one that generates by --stage; others: --protocol NAME"
        raise UserError(what, where, hint)
    if not trained.model.clip_spec.class_names:
        raise UserError(
            "this evaluation asks for classes, and the model was trained without",
            where,
            "--protocol NAME asks for none",
        )


def _evaluate(args: argparse.Namespace, trained: Trained, options: dict[str, Any], clock: _Clock) -> dict[str, Any]:
    from vgen.metrics.image_to_video import evaluate_image_to_video
    from vgen.video import Reconstructs

    data = _data(args, trained)
    names = trained.model.clip_spec.class_names
    classifier, first_frame = _classifiers(args, trained, data, clock)
    timed = _Timed(trained.model, clock, args.clips)
    decode: Callable[[dict[str, Any]], Tensor] | None = None
    if isinstance(trained.model, Reconstructs):
        decode = timed.decode_real
    with clock.part("reading"):
        test = list(batches(data, "test", args.clips, args.seed, args.batch))
    landmarks = _landmarks(data)
    result = evaluate_image_to_video(
        timed,
        test,
        names,
        classifier,
        first_frame,
        decode,
        landmarks,
        clips=args.clips,
        seed=args.seed,
        batch_size=args.batch,
        options=options,
        device=trained.device,
    )
    reads = result["metrics"]["classifier_accuracy_real"]["value"]
    if reads < _READS_WELL:
        result["note"] += (
            f" The classifier reads only {reads:.0%} of the real clips: its figures say little about the model."
        )
    result["settings"]["options"] = option_texts(args.option)
    return result


def _data(args: argparse.Namespace, trained: Trained) -> "VideoDataModule":
    """The run's data with clips of the model's length, chosen for training as they are for testing."""
    spec = trained.model.clip_spec
    plain: dict[str, Any] = {
        "frames": spec.frames,
        "eval_frames": spec.frames,
        "size": spec.height,
        "augmentation": "none",
        "repeats": 1,
    }
    data = open_data(trained.file, args.data_root, plain)
    data.sampling = data.eval_sampling
    if not data.clip_spec.class_names:
        raise UserError("the data has no classes, which this evaluation asks for", str(data.root))
    check_classes(data, spec.class_names)
    return data


def check_classes(data: "VideoDataModule", known: Sequence[str]) -> None:
    """Refuses data whose classes are not those that a model was trained on.

    Raises:
        UserError: Names some of both.
    """
    names = data.clip_spec.class_names
    if names != tuple(known):
        raise UserError(
            f"the data has other classes than the model: {', '.join(names[:5])} instead of {', '.join(known[:5])}",
            str(data.root),
            "is it the data that the model was trained on?",
        )


def batches(data: "VideoDataModule", split: Any, clips: int, seed: int, batch: int) -> Iterator[dict[str, Any]]:
    """At most `clips` clips of a set, drawn without replacement, in batches."""
    import numpy as np

    from vgen.data.sampling import ResumableDataLoader, ResumableSampler

    dataset = data.dataset(split)
    if len(dataset.records) > clips:
        chosen = np.random.default_rng(seed).permutation(len(dataset.records))[:clips]
        dataset.keep([dataset.records[index] for index in sorted(chosen)])
    sampler = ResumableSampler(len(dataset), 1, shuffle=False)
    yield from ResumableDataLoader(dataset, sampler, batch, data.num_workers)


def _classifiers(args: argparse.Namespace, trained: Trained, data: "VideoDataModule", clock: _Clock) -> tuple[Any, Any]:
    """The compact classifier of the run's training clips, and its twin that sees first frames alone."""
    from vgen.metrics.detectors import collect, trained_classifier
    from vgen.metrics.detectors.compact import TrainingSettings

    with clock.part("reading"):
        videos, labels, _ = collect(batches(data, "train", args.classifier_clips, 0, args.batch))
    videos, labels = videos.to(trained.device), labels.to(trained.device)
    found = []
    for view in ("clip", "first_frame"):
        with clock.part("classifier"):
            settings = TrainingSettings(steps=args.classifier_steps, view=view)
            folder = trained.folder / "evaluation" / "classifier"
            names = trained.model.clip_spec.class_names
            found.append(trained_classifier(videos, labels, names, folder, settings))
        print(f"[evaluate] classifier of {view.replace('_', ' ')}s ready ({len(videos)} training clips)", flush=True)
    return found[0], found[1]


def _landmarks(data: "VideoDataModule") -> dict[str, Any] | None:
    """Boxes of face parts, where the data has a file of them."""
    path = data.root / "landmarks.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the file of landmarks cannot be read: {error}", str(path)) from error
    return content if isinstance(content, dict) else None


def _settings(args: argparse.Namespace, trained: Trained, clock: _Clock) -> dict[str, Any]:
    """What a reader needs to repeat the figures."""
    from vgen.configurable import describe

    header, facts = trained.file.header, {}
    for name in ("sampler", "guidance"):
        value = describe(getattr(trained.model, name, None))
        if isinstance(value, dict | float | int):
            facts[name] = value
    return {
        "model": header["class_path"],
        "stage": header.get("stage"),
        "step": header.get("step"),
        "weights": trained.weights,
        **facts,
        "classifier_steps": args.classifier_steps,
        "device": trained.device,
        "seconds": clock.rounded(),
    }


def table(result: dict[str, Any]) -> list[str]:
    """The figures as lines of text."""
    rows = [("metric", "value", "95 % interval", "n")]
    for name, metric in result["metrics"].items():
        unit = "" if metric["unit"] in ("share", "ratio") else f" {metric['unit']}"
        interval = f"{metric['low']:.3f} to {metric['high']:.3f}"
        rows.append((name, f"{metric['value']:.3f}{unit}", interval, str(metric["n"])))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    settings = result["settings"]
    shown = ", ".join(f"{part} {seconds:g}" for part, seconds in settings["seconds"].items())
    lines += ["", f"chance {settings['chance']:.3f}; {settings['subjects']} subjects; seconds: {shown}"]
    return lines
