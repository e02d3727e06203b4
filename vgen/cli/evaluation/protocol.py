"""`vgen evaluate` under a protocol: two sets of clips, the second one generated here where a model is given."""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.cli.evaluation.sides import (
    DataBlock,
    Real,
    check_split,
    data_block,
    generated_folder,
    key_values,
    real_side,
)
from vgen.errors import UserError

if TYPE_CHECKING:
    from vgen.cli.trained import Trained
    from vgen.metrics.catalogue import Role
    from vgen.metrics.detectors import Detector
    from vgen.metrics.generated import ClipMaker, SampleStore
    from vgen.metrics.pairs import Distances
    from vgen.metrics.protocols import Protocol
    from vgen.metrics.reconstructed import Reconstructions
    from vgen.metrics.sources import ClipSource
    from vgen.metrics.study import Compared, Study

_SAY_EVERY = 5.0  # seconds between two lines of progress
_SHOWN, _CLOSEST = 12, 6  # clips of a grid on the page, and rows of neighbours


def run(args: argparse.Namespace) -> int:
    """Measures on all ranks; the first one writes `<name>.json`, `.csv` and `.html`, and prints a table.

    Raises:
        UserError: Something is missing, or does not fit.
    """
    from vgen.cli.process_group import process_group
    from vgen.metrics.detectors.choice import read_choices
    from vgen.metrics.protocols import load_protocol

    for name, least in (("clips", 2), ("batch", 1), ("workers", 0), ("training_clips", 0), ("classifier_steps", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"must be at least {least}, got {value}", f"--{name.replace('_', '-')}")
    protocol = load_protocol(args.protocol)
    changes = key_values(args.change, "--change")
    if args.clips is not None:
        made = changes.get("made", protocol.made)
        changes["n_real" if made == "reconstructions" else "n_fake"] = args.clips
    protocol = protocol.but(**changes)
    if args.metrics:
        protocol = replace(protocol, metrics=tuple(args.metrics))
    choices = read_choices(args.detector)
    with process_group(args.device) as args.device:
        evaluation = _Evaluation(args, protocol)
        evaluation.open(choices)
        evaluation.measure()
    return 0


@dataclass
class _Pictured:
    """What the page shows, filled in by the comparison."""

    compared: "Compared | None" = None
    study: "Study | None" = None


class _Progress:
    """Lines of progress of the first rank, not too many of them."""

    def __init__(self, first: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.first, self.clock, self.said = first, clock, -_SAY_EVERY

    def __call__(self, what: str, done: int, total: int) -> None:
        """Says how far it is, of this rank's share."""
        if self.first and (done == total or self.clock() - self.said >= _SAY_EVERY):
            self.said = self.clock()
            print(f"[evaluate] {done}/{total} {what} clips", flush=True)


class _Evaluation:
    """One evaluation on one rank."""

    real: Real
    detectors: "dict[Role, Detector]"
    lpips: "Distances"
    make: "ClipMaker | Reconstructions"

    def __init__(self, args: argparse.Namespace, protocol: "Protocol") -> None:
        from vgen.metrics.ranks import rank_and_size

        self.args, self.protocol, self.trained = args, protocol, _trained(args, protocol)
        self.first = rank_and_size()[0] == 0
        self.progress = _Progress(self.first)
        folder = generated_folder(args.run)
        self.name = args.name or (f"{folder.resolve().name}_{protocol.name}" if folder else protocol.name)
        self.out = Path(args.out or (self.trained.folder if self.trained else Path()) / "evaluation")
        self.device = args.device if self.trained is None else self.trained.device
        self.store: SampleStore | None = None
        self.fake: ClipSource | None = None

    # ---- what is compared --------------------------------------------------------------------------------------------

    def open(self, choices: "dict[Role, str]") -> None:
        """Opens both sides and the networks: a mistake costs no generated clip."""
        import torch

        from vgen.metrics.catalogue import chosen_metrics
        from vgen.metrics.detectors.choice import chosen_detectors
        from vgen.metrics.pairs import lpips_distances
        from vgen.metrics.reading import same_size
        from vgen.metrics.sources import FolderClips

        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        args, (cards, scores) = self.args, chosen_metrics(self.protocol.metrics, self.protocol)
        block = data_block(args, self.trained)
        by_folder = "cfvd" in self.protocol.metrics
        if self.trained is None:
            self.fake = FolderClips(args.run)
            size: Sequence[int] = self.fake.clip(0, [0]).shape[-2:]
        else:
            spec = self.trained.model.clip_spec
            size = (spec.height, spec.width)
        self.real = real_side(args, block, self.protocol, size, by_folder)
        self.protocol = self.protocol.of(self.real.clips.data)
        check_split(self.real, self.protocol)
        if self.trained is None and by_folder:
            self.fake = FolderClips(args.run, "folder", class_names=self.real.class_names)
        small = {role for role, choice in choices.items() if choice == "small"}
        given = {role: str(self._classifier(block, size)) if role in small else choices[role] for role in choices}
        self.detectors = chosen_detectors([card.role for card in cards], given, self.protocol, args.batch)
        self.lpips = lpips_distances(scores)
        for detector in self.detectors.values():
            detector.check_frames(self.protocol.n_frames)
        if self.trained is not None:
            same_size(tuple(self.real.clips.clip(0, [0]).shape), (spec.channels, 1, spec.height, spec.width))
            self._plan(block)

    def _plan(self, block: DataBlock | None) -> None:
        """Says what the model is to make: nothing is made yet."""
        from vgen.cli.trained import option_texts
        from vgen.metrics.generated import SampleStore
        from vgen.metrics.reconstructed import Reconstructions
        from vgen.metrics.record import versions

        assert self.trained is not None
        args, trained, protocol = self.args, self.trained, self.protocol
        if protocol.made == "reconstructions":
            if args.option:
                raise UserError("reconstructions are not sampled: there is nothing to set", "--option")
            self.make = Reconstructions(trained.model, self.real.clips, protocol)
            self.count, self.frames = len(self.make.clips), protocol.n_frames
        else:
            self.make = self._sampled(trained, block)
        settings = {
            "model": _identity(trained),
            "options": option_texts(args.option),
            **self.make.settings,
            "device": self.device.partition(":")[0],
            "versions": versions(),
        }
        self.store = SampleStore(self.out / self.name, settings, protocol.quantise)

    def _sampled(self, trained: "Trained", block: DataBlock | None) -> "ClipMaker":
        """What makes the clips of a model that samples; their number and length."""
        from vgen.cli.evaluation.image_to_video import check_classes
        from vgen.cli.trained import model_inputs, read_options
        from vgen.metrics.generated import ClipMaker
        from vgen.metrics.selection import Selection

        args, protocol = self.args, self.protocol
        span = (protocol.n_frames - 1) * protocol.fake_stride + 1
        self.frames = max(span, protocol.least_frames or 0) if protocol.fake_stride > 1 else span
        count = protocol.n_fake or len(Selection(self.real.clips, protocol).real())
        self.count = count * protocol.trials
        spec, data = trained.model.clip_spec, None
        split = args.split or protocol.split
        if inputs := model_inputs(trained.model):
            if block is None:
                hint = "name the data that gives them: --data NAME --root DIR"
                raise UserError(f"the model asks for {', '.join(sorted(inputs))}", str(trained.file.path), hint)
            data = block.build((spec.height, spec.width), spec.frames, sampling=None)
            if "label" in inputs and spec.class_names:
                check_classes(data, spec.class_names)
        return ClipMaker(trained.model, self.frames, args.seed, read_options(args.option), data, split)

    def _classifier(self, block: DataBlock | None, size: Sequence[int]) -> Path:
        """The compact classifier of the data's own classes, trained on its training clips by the first rank."""
        from vgen.cli.evaluation.image_to_video import batches
        from vgen.metrics.detectors import collect
        from vgen.metrics.detectors.compact import TrainingSettings, kept_classifier
        from vgen.metrics.ranks import from_first, raise_together

        if self.args.real is not None or block is None:
            raise UserError("the small detector is trained on a data set with classes", "--detector small", "--data")
        folder, path, error = self.out / "classifier", None, None
        try:
            if self.first:
                data = block.build(size, self.protocol.n_frames, sampling=None)
                if not data.clip_spec.class_names:
                    raise UserError("the data has no classes to train the small detector on", str(data.root))
                videos, labels, _ = collect(batches(data, "train", self.args.classifier_clips, 0, self.args.batch))
                settings = TrainingSettings(steps=self.args.classifier_steps)
                names = data.clip_spec.class_names
                path = kept_classifier(videos.to(self.device), labels.to(self.device), names, folder, settings)
                print(f"[evaluate] small detector ready ({len(videos)} training clips, {path.name})", flush=True)
        except Exception as raised:
            error = raised
        raise_together(error)
        found = from_first(path)
        assert found is not None
        return found

    # ---- numbers -----------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Generates what is missing, compares, and writes."""
        from vgen.metrics.evaluation import compare
        from vgen.metrics.generated import StoredClips
        from vgen.metrics.reconstructed import Reconstructions, StoredReconstructions
        from vgen.metrics.study import study

        args, pictured, extra = self.args, _Pictured(), dict[str, Any]()
        if self.store is not None:
            assert self.trained is not None
            self._generate()
            extra = {"batch": args.batch}
            if isinstance(self.make, Reconstructions):
                self.fake = StoredReconstructions(self.store, self.make, extra)
            else:
                self.fake = StoredClips(self.store, self.count, extra)
        assert self.fake is not None

        def look(compared: "Compared") -> None:
            pictured.compared = compared
            if args.training_clips and self.protocol.made == "samples":  # what is copied shows no memory
                pictured.study = study(compared, self.real.training, self.real.held_out, args.training_clips)

        record = compare(
            self.real.clips,
            self.fake,
            self.protocol,
            detectors=self.detectors,
            lpips=self.lpips,
            device=self.device,
            batch=args.batch,
            workers=args.workers,
            floor=not args.no_floor,
            cache=None if args.cache.lower() == "none" else args.cache,
            progress=self.progress,
            seen=look,
        )
        if not self.first:
            return
        warnings = (*record.warnings, *self._doubts())
        record = replace(record, warnings=warnings, study=pictured.study.to_dict() if pictured.study else None)
        self._write(record, pictured)
        if self.store is not None:
            self._keep_or_delete(self.store)

    def _generate(self) -> None:
        from vgen.metrics.generated import generate

        assert self.store is not None and self.trained is not None
        what = "generated" if self.protocol.made == "samples" else "reconstructed"
        others = [path for path in self.store.folder.parent.glob("samples-*") if path != self.store.folder]
        if others and self.first:
            print(f"[evaluate] {others[0]} has clips of other weights or options: not used", flush=True)
        there = sum(self.store.has([number]) for number in range(self.count))
        if there and self.first:
            print(f"[evaluate] {there} of {self.count} clips are there already", flush=True)
        try:
            generate(
                self.store,
                self.count,
                self.args.batch,
                self.make,
                progress=lambda done, total: self.progress(what, done, total),
            )
        except ValueError as error:
            if self.args.option:  # samplers say by it which value of an option they do not take
                raise UserError(str(error), "--option") from error
            raise

    def _doubts(self) -> list[str]:
        if self.trained is None or self.protocol.made == "reconstructions":
            return []
        if self.frames == self.trained.model.clip_spec.frames:
            return []
        trained_on = self.trained.model.clip_spec.frames
        return [f"the model was trained on clips of {trained_on} frames and generated {self.frames}"]

    # ---- results -----------------------------------------------------------------------------------------------------

    def _write(self, record: Any, pictured: _Pictured) -> None:
        from vgen.cli.evaluation.pictures import pictures
        from vgen.files import write_text
        from vgen.report.evaluation import write_evaluation

        assert pictured.compared is not None
        path = self.out / f"{self.name}.json"
        record.write(path)
        write_text(path.with_suffix(".csv"), record.csv())
        shown = pictures(pictured.compared, pictured.study, _SHOWN, _CLOSEST)
        write_evaluation(path.with_suffix(".html"), record.to_dict(), shown, self.name)
        print("\n".join(record.table()))
        print(f"written to {path}, .csv and .html")

    def _keep_or_delete(self, store: "SampleStore") -> None:
        if not self.args.keep_samples:
            store.delete()
            return
        from vgen.metrics.reading import to_pixels
        from vgen.video.io import write_video

        assert self.trained is not None
        for number in range(self.count):
            path = store.path(number).with_suffix(".mp4")
            if not path.is_file():
                write_video(path, to_pixels(store.read(number)), float(self.trained.model.clip_spec.fps))
        print(f"{self.count} clips kept in {store.folder}")


def _trained(args: argparse.Namespace, protocol: "Protocol") -> "Trained | None":
    """The model, where a model is given: of reconstructions, that of the newest stage that makes them."""
    from vgen.cli.trained import open_trained
    from vgen.video import Reconstructs, Samples
    from vgen.weights.checkpoint import stages_of_run

    if generated_folder(args.run) is not None:
        return None
    trained = open_trained(args)
    if protocol.made == "samples":
        if isinstance(trained.model, Samples):
            return trained
        hint = "an auto-encoder only reconstructs; for a run of several stages, name another one by --stage"
        raise UserError(f"{type(trained.model).__name__} does not generate clips", str(args.run), hint)
    run = Path(args.run)
    earlier = stages_of_run(run)[:-1] if args.stage is None and run.is_dir() else []
    while not isinstance(trained.model, Reconstructs):
        if not earlier:
            hint = f"protocol {protocol.name} measures what an auto-encoder makes of real clips"
            raise UserError(f"{type(trained.model).__name__} does not reconstruct clips", str(args.run), hint)
        trained = open_trained(argparse.Namespace(**{**vars(args), "stage": earlier.pop()}))
    return trained


def _identity(trained: "Trained") -> dict[str, Any]:
    """Which model it is, down to its weights."""
    import hashlib

    from vgen.metrics.detectors.base import tensor_hash

    header, digest = trained.file.header, hashlib.sha256()
    for key in ("class_path", "init_args", "clip_spec"):
        digest.update(repr(header[key]).encode())
    for name, value in sorted(trained.file.weights(trained.weights).items()):  # type: ignore[arg-type]
        digest.update(f"{name}{tensor_hash(value)}".encode())
    facts = {"class": header["class_path"], "stage": header.get("stage"), "step": header.get("step")}
    return {**facts, "weights": trained.weights, "sha256": digest.hexdigest()}
