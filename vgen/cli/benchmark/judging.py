"""How the clips of a benchmark are judged: a classifier of the data's own classes, and what real clips get from it."""

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgen.cli.benchmark.clips import BenchmarkClips, read_batch
from vgen.cli.benchmark.table import Row
from vgen.errors import UserError
from vgen.files import write_json
from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.detectors.compact import TrainingSettings
from vgen.metrics.small import Judge, small_detector

Metrics = dict[str, dict[str, Any]]


class Judging:
    """The judge of a benchmark. Clips are read, and its classifier trained, when they are first needed.

    Args:
        clips: The data.
        count: Most clips of each of the two halves of the held-out set.
        folder: Where the classifier and the rows of real clips are kept.
        judge_clips: Most training clips that the classifier sees.
        judge_steps: Steps of its training.
    """

    def __init__(self, clips: BenchmarkClips, count: int, folder: Path, judge_clips: int, judge_steps: int) -> None:
        self.clips, self.folder = clips, folder
        self.judge_clips, self.judge_steps = judge_clips, judge_steps
        self.real, self.sources = clips.halves(count)

    @cached_property
    def held_out(self) -> dict[str, Any]:
        """The real clips whose first frames, classes and texts the models are given, as one batch."""
        return read_batch(self.clips.module, self.sources)

    @cached_property
    def judge(self) -> Judge:
        """The classifier, and the other real clips that clips are compared with."""
        print("[benchmark] the judge: a classifier of the data's own classes", flush=True)
        detector = small_detector(
            self.clips.source("train"),
            self.clips.source("test"),
            self.clips.module.clip_spec.class_names,
            self.clips.frames,
            self.folder,
            TrainingSettings(steps=self.judge_steps),
            self.judge_clips,
        )
        accuracy = detector.identity.settings["held_out_accuracy"]
        print(f"[benchmark] it reads {accuracy['value']:.1%} of {accuracy['n']} held-out clips", flush=True)
        return Judge(detector, read_batch(self.clips.module, self.real)["video"], self.held_out["video"])

    def baselines(self) -> list[Row]:
        """Real clips, whose distance is the floor, and ways in which clips are wrong in time alone."""
        path = self.folder / "baselines.json"
        if not path.is_file():
            real: Tensor = self.held_out["video"]
            chance = torch.Generator().manual_seed(0)
            shuffled = torch.stack([clip[:, torch.randperm(clip.shape[1], generator=chance)] for clip in real])
            mean = real.float().mean(2, keepdim=True).round().to(real.dtype)
            made = {
                "real clips (floor)": real,
                "real, frames shuffled": shuffled,
                "real, first frame frozen": real[:, :, :1].expand_as(real).contiguous(),
                "real, mean frame": mean.expand_as(real).contiguous(),
            }
            write_json(path, {name: self._baseline(videos, real) for name, videos in made.items()})
        return _rows(path)

    def real_chain(self, clips: int) -> list[Row]:
        """Rows of the clips that follow one another in real videos; none where the videos are too short for that."""
        path = self.folder / f"chain_{clips}.json"
        if not path.is_file():
            try:
                videos = read_batch(self.clips.chained(clips), self.sources)["video"]
            except UserError as error:
                print(f"[benchmark] no real videos of {clips} clips: {error.what}", flush=True)
                return []
            write_json(path, {f"real clips, {name}": metrics for name, metrics in self.chained(videos, clips).items()})
        return _rows(path)

    def chained(self, videos: Tensor, clips: int) -> dict[str, Metrics]:
        """Measures each of the clips of videos by itself, by its name.

        Args:
            videos: (N, C, clips * T, H, W) uint8.
            clips: Clips of each video.
        """
        parts = videos.chunk(clips, dim=2)
        return {f"clip {n} of {clips}": self._scores(part.contiguous(), False) for n, part in enumerate(parts, 1)}

    def metrics(self, made: dict[str, Tensor], reads_class: bool) -> Metrics:
        """Measures what a model has made of `held_out`.

        Args:
            made: `generated` (N, C, T, H, W) uint8, and `squared_error` (N,) of reconstructions, where there are such.
            reads_class: Whether the class that is asked for changes the clips.
        """
        found: Metrics = {}
        if "generated" in made:
            found |= self._scores(made["generated"], reads_class)
        if "squared_error" in made:
            found["psnr/set"] = self._psnr(made["squared_error"])
        return found

    def _baseline(self, videos: Tensor, real: Tensor) -> Metrics:
        """What is measured of real clips that were changed; as a reconstruction of themselves too, where they were."""
        found = self._scores(videos, classes=True)
        if not torch.equal(videos, real):
            found["psnr/set"] = self._psnr(((videos.float() - real.float()) / 255).square().flatten(1).mean(1))
        return found

    def _psnr(self, squared_error: Tensor) -> dict[str, Any]:
        """PSNR of the mean squared error of all clips.

        A mean of decibels would be ruled by clips that stand still, in which a copied frame makes no error at all.
        """
        ends = bootstrap_interval(squared_error, self._subjects)
        value, high, low = (-10 * math.log10(max(error, 1e-12)) for error in (float(squared_error.mean()), *ends))
        return {"value": value, "low": low, "high": high, "n": len(squared_error), "unit": "dB"}

    def _scores(self, videos: Tensor, classes: bool) -> Metrics:
        return self.judge.scores(videos, self.held_out["label"] if classes else None, self._subjects)

    @property
    def _subjects(self) -> list[str] | None:
        subjects: list[str] = self.held_out.get("subject") or [""]
        return subjects if all(subjects) else None


def _rows(path: Path) -> list[Row]:
    """The rows of real clips that were kept in a file."""
    return [Row(name, metrics) for name, metrics in json.loads(path.read_text(encoding="utf-8")).items()]
