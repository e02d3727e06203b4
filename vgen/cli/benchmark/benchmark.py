"""A benchmark from its first row to its last, interrupted or not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vgen.cli.benchmark.clips import BenchmarkClips
from vgen.cli.benchmark.judging import Judging
from vgen.cli.benchmark.making import CLIPS, UNTRAINED, Making, made_by, train_and_make
from vgen.cli.benchmark.process import apart
from vgen.cli.benchmark.recipes import Budget, Stages, adapt, check, own_lengths, read_recipe, share
from vgen.cli.benchmark.table import Row, as_csv, as_markdown, as_text
from vgen.cli.benchmark.work import Job, cost, pace, train
from vgen.cli.run import dump
from vgen.cli.stages import changed_keys
from vgen.errors import UserError
from vgen.files import sha256, write_json, write_text
from vgen.video.grid import video_grid
from vgen.video.io import write_video

_READS_WELL = 0.9  # below that, figures made with the classifier say more about it than about a model
_SHOWN = 16  # clips in the video of each recipe
_TIMED = 8  # steps of each stage that are timed for a budget of seconds
_SEES = {"clips": "clips seen", "steps": "optimiser steps", "seconds": "seconds, by the time of a step"}


@dataclass(frozen=True)
class _Entry:
    """A recipe: its file, and its stages as they would train by themselves."""

    name: str
    path: Path
    stages: Stages


class Benchmark:
    """Trains recipes alike, measures what they make, and keeps a table of it in a folder.

    A row that is finished is never made again, a training goes on where it stands, and a recipe that fails ends as a
    row that says why.

    Args:
        out: The folder. Every recipe has its run directory in it.
        clips: The data.
        recipes: Files of the recipes.
        budget: What each of them gets.
        count: Most clips that are generated, and most real ones they are compared with.
        seed: Of trainings and noise.
        batch: Clips generated at once.
        device: `cpu` or `cuda`, for the recipes; the judge stays on the CPU.
        judge_clips: Most training clips that the judge's classifier sees.
        judge_steps: Steps of its training.
        untrained: Whether each recipe gets a second row, of its last stage with the weights that it began with.
        chain: Clips of long videos, each of which gets a row; 1: no long videos.

    Raises:
        UserError: Two recipes of one name; too few held-out clips.
    """

    def __init__(
        self,
        out: Path,
        clips: BenchmarkClips,
        recipes: Sequence[Path],
        budget: Budget,
        count: int,
        seed: int,
        batch: int,
        device: str,
        judge_clips: int,
        judge_steps: int,
        untrained: bool = False,
        chain: int = 1,
    ) -> None:
        self.out, self.clips, self.budget = out, clips, budget
        self.seed, self.batch, self.device = seed, batch, device
        self.accelerator: Literal["cpu", "gpu"] = "cpu" if device == "cpu" else "gpu"
        self.makings = [CLIPS]
        if untrained:
            self.makings.append(UNTRAINED)
        if chain > 1:
            self.makings.append(Making("chained", clips=chain))
        self.recipes = {path.stem: path for path in recipes}
        if len(self.recipes) < len(recipes):
            raise UserError("two recipes have the same name, by which rows are known", "--recipes", "rename one file")
        self.judging = Judging(clips, count, out / "judge", judge_clips, judge_steps)

    def run(self) -> list[Row]:
        """All rows, baselines first; the table is written after each.

        Raises:
            UserError: The folder holds something else.
        """
        self._claim()
        entries = [self._read(name, path) for name, path in self.recipes.items()]
        rows = self.judging.baselines()
        for making in self.makings:
            if making.clips > 1:
                rows += self.judging.real_chain(making.clips)
        for entry in entries:
            rows += [entry] if isinstance(entry, Row) else self._rows(entry)
            self._write(rows)
        return rows

    # ---- settings ----------------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What all rows have in common, as plain data."""
        settings = {
            "data": {"name": self.clips.name, "fingerprint": self.clips.module.fingerprint, **self.clips.init_args},
            "budget": asdict(self.budget),
            "seed": self.seed,
            "clips": len(self.judging.sources),
            "batch": self.batch,
            "device": self.device,
            "judge": {"clips": self.judging.judge_clips, "steps": self.judging.judge_steps},
        }
        return dict(json.loads(json.dumps(settings)))

    def _claim(self) -> None:
        """Makes sure that what lies in the folder belongs to this benchmark; further recipes may join it."""
        path = self.out / "settings.json"
        if path.is_file():
            if changed := changed_keys(json.loads(path.read_text(encoding="utf-8")), self.settings):
                what = f"another benchmark lies there: {', '.join(changed[:4])} differ"
                raise UserError(what, str(self.out), "choose another --out, or delete the folder")
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError("the folder is not empty, and holds no benchmark", str(self.out), "choose another --out")
        write_json(path, self.settings)

    @cached_property
    def train_clips(self) -> int:
        """Number of training clips."""
        return len(self.clips.module.dataset("train"))

    # ---- recipes -----------------------------------------------------------------------------------------------------

    def _read(self, name: str, path: Path) -> "_Entry | Row":
        """Reads a recipe and looks whether it fits, before anything is trained."""
        try:
            stages, shrunk = read_recipe(path)
            check(self._adapted(stages, dict.fromkeys(stages, 1)))
        except UserError as error:
            return _failed(name, error)
        if not shrunk:
            print(f"[benchmark] {name}: no tiny overlay beside the recipe, so it keeps its size", flush=True)
        return _Entry(name, path, stages)

    def _adapted(self, stages: Stages, steps: Mapping[str, int]) -> Stages:
        return adapt(stages, self.clips, steps, self.seed, self.accelerator)

    def _rows(self, entry: _Entry) -> list[Row]:
        """Trains and measures one recipe, as far as that has not happened."""
        run_dir = (self.out / entry.name).absolute()
        try:
            job = self._job(entry, run_dir)
            missing = tuple(making for making in self.makings if not making.facts(job).is_file())
            if not missing:
                print(f"[benchmark] {entry.name}: was finished before", flush=True)
            else:
                print(f"[benchmark] {entry.name}: training", flush=True)
                if (error := apart(train_and_make, job, missing)) is not None:
                    raise UserError(error)
            return [row for making in self.makings for row in self._measured(entry, job, making)]
        except UserError as error:
            return [_failed(entry.name, error)]

    def _measured(self, entry: _Entry, job: Job, making: Making) -> list[Row]:
        """The rows of what a recipe's model has made."""
        path = job.run_dir / "evaluation" / "benchmark.json" if making == CLIPS else making.folder(job) / "metrics.json"
        if not path.is_file():
            made = made_by(job, making)
            if making == CLIPS:
                self._show(job, made.get("generated"))
                write_json(path, self._record(entry, job, made))
            elif "generated" not in made:
                write_json(path, {})
            elif making.clips > 1:
                write_json(path, self.judging.chained(made["generated"], making.clips))
            else:
                write_json(path, {making.name: self.judging.metrics(made, reads_class=False)})
        found = json.loads(path.read_text(encoding="utf-8"))
        if making == CLIPS:
            return [_row_of(entry.name, found)]
        return [Row(f"{entry.name}, {name}", metrics) for name, metrics in found.items()]

    def _job(self, entry: _Entry, run_dir: Path) -> Job:
        """Writes the recipe that is trained.

        Raises:
            UserError: What was begun under that name was another.
        """
        timed = self._pace(entry) if self.budget.unit == "seconds" else None
        steps = share(own_lengths(entry.stages, self.train_clips), self.budget, timed)
        text = dump({"stages": self._adapted(entry.stages, steps)})
        path = self.out / "recipes" / f"{entry.name}.yaml"
        if run_dir.is_dir() and path.is_file() and path.read_text(encoding="utf-8") != text:
            raise UserError("the recipe has changed since its row was begun", str(entry.path), f"delete {run_dir}")
        write_text(path, text)
        numbers = tuple(self.judging.sources)
        return Job(path, run_dir, self.clips.config(), numbers, self.batch, self.seed, self.device)

    def _pace(self, entry: _Entry) -> dict[str, float]:
        """Seconds of a step of each stage, by a short training. Once: what goes on must be what was begun."""
        folder = self.out / "timing"
        known, recipe, run_dir = folder / f"{entry.name}.json", folder / f"{entry.name}.yaml", folder / entry.name
        if not known.is_file():
            print(f"[benchmark] {entry.name}: timing {_TIMED} steps of each stage", flush=True)
            write_text(recipe, dump({"stages": self._adapted(entry.stages, dict.fromkeys(entry.stages, _TIMED))}))
            if (error := apart(train, recipe, run_dir.absolute())) is not None:
                raise UserError(error)
            write_json(known, pace(run_dir, list(entry.stages)))
        return dict(json.loads(known.read_text(encoding="utf-8")))

    def _show(self, job: Job, generated: Tensor | None) -> None:
        """Writes some of the clips as one video, for people and for `vgen report`."""
        if generated is None:
            return
        spec, names = self.clips.module.clip_spec, self.clips.module.clip_spec.class_names
        asked = [names[label] for label in self.judging.held_out["label"][:_SHOWN].tolist()]
        path = job.run_dir / "generated" / "grid.mp4"
        write_video(path, video_grid(generated[:_SHOWN]), spec.fps)
        write_json(path.with_suffix(".json"), {"kind": "grid", "captions": asked, "fps": spec.fps})

    def _record(self, entry: _Entry, job: Job, made: dict[str, Tensor]) -> dict[str, Any]:
        """The evaluation record of a trained recipe (docs/evaluation.md)."""
        facts = json.loads(CLIPS.facts(job).read_text(encoding="utf-8"))
        spent = cost(job.run_dir, facts["stages"]) | {"sample_clips_per_s": facts.pop("sample_clips_per_s")}
        recipe = {"recipe": str(entry.path), "adapted_sha256": sha256(job.recipe)}
        return {
            "protocol": f"benchmark/{self.clips.name}",
            "metrics": self.judging.metrics(made, facts["reads_class"]),
            "settings": {**self.settings, **recipe, **facts, "cost": spent},
            "note": "A small training on small clips. It ranks what was trained alike; no published number compares.",
        }

    # ---- the table ---------------------------------------------------------------------------------------------------

    def text(self, rows: Sequence[Row]) -> list[str]:
        """The table, and what must be known to read it."""
        return [*as_text(rows), "", *self._notes(rows)]

    def _write(self, rows: Sequence[Row]) -> None:
        notes = self._notes(rows)
        content = {"settings": self.settings, "notes": notes, "rows": [asdict(row) for row in rows]}
        write_json(self.out / "benchmark.json", content)
        write_text(self.out / "benchmark.csv", as_csv(rows))
        write_text(self.out / "benchmark.md", as_markdown(rows) + "".join(f"\n- {note}" for note in notes) + "\n")

    def _notes(self, rows: Sequence[Row]) -> list[str]:
        floor, spec = rows[0].metrics["frechet_small"], self.clips.module.clip_spec
        detector = floor["detector"]["settings"]
        accuracy, fingerprint = detector["held_out_accuracy"], self.settings["data"]["fingerprint"]
        weak = "warning: the classifier reads little, so that its figures say little; more --judge-steps may help"
        return [
            f"data: {self.clips.name}, {spec.frames} frames of {spec.height}x{spec.width}, "
            f"{len(spec.class_names)} classes, {self.train_clips} training clips, fingerprint {fingerprint[:12]}",
            f"each recipe: {self.budget.amount:g} {_SEES[self.budget.unit]} over all its stages, seed {self.seed}, "
            f"{self.device}; parameters and memory: those that train, the training process's peak",
            f"frechet_small: {floor['n']} clips against {floor['n_real']} other real ones; its classifier reads "
            f"{accuracy['value']:.3f} of {accuracy['n']} held-out clips (chance {detector['chance']:.3f}); no FVD",
            *([weak] if accuracy["value"] < _READS_WELL else []),
            f"diversity of the real clips that they are compared with: {rows[0].metrics['diversity']['real']:.3f}",
        ]


def _failed(name: str, error: UserError) -> Row:
    text = error.what + (f" ({error.where})" if error.where else "")
    print(f"[benchmark] {name}: failed: {text}{f'; {error.hint}' if error.hint else ''}", flush=True)
    return Row(name, error=text)


def _row_of(name: str, record: Mapping[str, Any]) -> Row:
    settings = {key: record["settings"][key] for key in ("recipe", "model", "weights", "inputs", "reads_class")}
    return Row(name, record["metrics"], record["settings"]["cost"], settings=settings)
