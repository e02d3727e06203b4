"""The training of one recipe in a benchmark, and what it cost."""

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgen.cli.run import run_command


@dataclass(frozen=True)
class Job:
    """One recipe's work.

    Args:
        recipe: The adapted recipe.
        run_dir: Its run directory.
        data: The benchmark's DataModule, as a recipe has it.
        numbers: Which held-out clips give first frames, classes and texts.
        batch: Clips generated at once.
        seed: Of the noise.
        device: `cpu` or `cuda`.
    """

    recipe: Path
    run_dir: Path
    data: dict[str, Any]
    numbers: tuple[int, ...]
    batch: int
    seed: int
    device: str


def train(recipe: Path, run_dir: Path) -> None:
    """Trains all stages of a recipe, or goes on where they stand."""
    run_command("fit", ["--config", str(recipe), "--run_dir", str(run_dir), "--resume"])


def pace(run_dir: Path, stages: list[str]) -> dict[str, float]:
    """Seconds of one step of each stage of a short training; its first steps, which set things up, do not count."""
    found = {}
    for stage in stages:
        times = [float(row["perf/step_ms"]) for row in _log(run_dir / stage) if row.get("perf/step_ms")]
        found[stage] = statistics.median(times[len(times) // 2 :]) / 1000
    return found


def cost(run_dir: Path, stages: list[str]) -> dict[str, Any]:
    """What the trainings of a run have cost: steps, clips, seconds, peak memory, trained parameters."""
    done = [json.loads((run_dir / stage / "done.json").read_text()) for stage in stages]
    facts = [json.loads((run_dir / stage / "environment.json").read_text()) for stage in stages]
    memory = [row["perf/memory_gb"] for stage in stages for row in _log(run_dir / stage) if row.get("perf/memory_gb")]
    seconds = sum(stage["seconds"] for stage in done)
    clips = sum(stage["clips"] for stage in done)
    return {
        "steps": {stage: record["step"] for stage, record in zip(stages, done, strict=True)},
        "clips_seen": {stage: record["clips"] for stage, record in zip(stages, done, strict=True)},
        "train_seconds": seconds,
        "train_clips_per_s": clips / max(seconds, 1e-9),
        "peak_memory_gb": max(map(float, memory), default=None),
        "parameters": sum(n for stage in facts for name, n in stage["parameters"] if not name.endswith("(frozen)")),
        "hardware": facts[-1]["hardware"],
    }


def _log(stage_dir: Path) -> list[dict[str, str]]:
    with open(stage_dir / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
