"""How the clips of a benchmark are judged: a classifier of the data's own classes, and what real clips get from it."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgen.cli.benchmark.clips import BenchmarkClips, read_batch
from vgen.cli.benchmark.table import Row
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
        """Real clips, whose distance is the floor, and two ways in which clips are wrong in time alone."""
        path = self.folder / "baselines.json"
        if path.is_file():
            return [Row(name, metrics) for name, metrics in json.loads(path.read_text(encoding="utf-8")).items()]
        real: Tensor = self.held_out["video"]
        chance = torch.Generator().manual_seed(0)
        shuffled = torch.stack([clip[:, torch.randperm(clip.shape[1], generator=chance)] for clip in real])
        frozen = real[:, :, :1].expand_as(real).contiguous()
        made = {"real clips (floor)": real, "real, frames shuffled": shuffled, "real, first frame frozen": frozen}
        rows = [Row(name, self._scores(videos, classes=True)) for name, videos in made.items()]
        write_json(path, {row.name: row.metrics for row in rows})
        return rows

    def metrics(self, made: dict[str, Tensor], reads_class: bool) -> Metrics:
        """Measures what a model has made of `held_out`.

        Args:
            made: `generated` (N, C, T, H, W) uint8, and `psnr` (N,) in dB of reconstructions, where there are such.
            reads_class: Whether the class that is asked for changes the clips.
        """
        found: Metrics = {}
        if "generated" in made:
            found |= self._scores(made["generated"], reads_class)
        if "psnr" in made:
            values = made["psnr"]
            low, high = bootstrap_interval(values, self._subjects)
            found["psnr/frame"] = {
                "value": float(values.mean()),
                "low": low,
                "high": high,
                "n": len(values),
                "unit": "dB",
            }
        return found

    def _scores(self, videos: Tensor, classes: bool) -> Metrics:
        return self.judge.scores(videos, self.held_out["label"] if classes else None, self._subjects)

    @property
    def _subjects(self) -> list[str] | None:
        subjects: list[str] = self.held_out.get("subject") or [""]
        return subjects if all(subjects) else None
