"""What a benchmark does with one recipe: train it, and let the model make its clips."""

import csv
import json
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vgen.cli.benchmark.clips import read_batch
from vgen.cli.run import run_command
from vgen.cli.trained import build_data, model_inputs
from vgen.data.datamodules import VideoDataModule
from vgen.errors import UserError
from vgen.files import write_atomic, write_json
from vgen.metrics.frames import psnr
from vgen.metrics.image_to_video import clip_seed
from vgen.training import VideoModule
from vgen.video import Reconstructs, Samples, to_uint8
from vgen.weights.checkpoint import build_model, read_model_file, stages_of_run

FACTS = "facts.json"


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

    @property
    def made(self) -> Path:
        """Folder of what the trained model makes."""
        return self.run_dir / "benchmark"


# Training -------------------------------------------------------------------------------------------------------------


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


# Clips ----------------------------------------------------------------------------------------------------------------


def train_and_make(job: Job) -> None:
    """Trains, then generates a clip for every chosen held-out clip, and reconstructs that."""
    train(job.recipe, job.run_dir)
    make(job)


@torch.no_grad()
def make(job: Job) -> None:
    """Writes `part_<n>.safetensors` with `generated` (uint8) and `psnr`, and facts.json; parts that are there stay."""
    data = build_data(job.data, str(job.recipe))
    stages = stages_of_run(job.run_dir)
    file = read_model_file(job.run_dir, stages[-1])
    model = _open(job, stages[-1])
    samples = isinstance(model, Samples)
    opened = (model if stage == stages[-1] else _open(job, stage) for stage in reversed(stages))
    reconstructs = next((m for m in opened if isinstance(m, Reconstructs)), None)
    trained = json.loads((job.run_dir / stages[-1] / "done.json").read_text())["sha256"]
    seconds = 0.0
    for part, start in enumerate(range(0, len(job.numbers), job.batch)):
        path = job.made / f"part_{part:04d}.safetensors"
        key = json.dumps({"weights": trained, "first": start, "batch": job.batch, "clips": len(job.numbers)})
        if (spent := _seconds_of(path, key)) is None:
            batch = _on_device(model, read_batch(data, job.numbers[start : start + job.batch]))
            found, spent = {}, 0.0
            if samples:
                found["generated"], spent = _generate(model, batch, job, start)
            if reconstructs is not None:
                made = reconstructs.reconstruct(batch).clamp(-1, 1)
                found["psnr"] = psnr((made.cpu() + 1) / 2, (batch["video"].cpu() + 1) / 2).mean(1)
            facts = {"key": key, "seconds": str(spent)}
            write_atomic(path, partial(save_file, found, metadata=facts))
            print(f"[benchmark] {min(start + job.batch, len(job.numbers))}/{len(job.numbers)} clips made", flush=True)
        seconds += spent
    write_json(
        job.made / FACTS,
        {
            "stages": stages,
            "model": file.header["class_path"],
            "weights": "raw" if file.ema is None else "ema",
            "samples": samples,
            "inputs": sorted(model_inputs(model)) if samples else [],
            "reads_class": samples and _reads_class(model, data, job),
            "sample_clips_per_s": len(job.numbers) / max(seconds, 1e-9) if samples else None,
        },
    )


def made_by(job: Job) -> dict[str, Tensor]:
    """What `make` has written: `generated` (N, C, T, H, W) uint8, `psnr` (N,) in dB, as far as the model has them."""
    found: dict[str, list[Tensor]] = {}
    for part in range(-(-len(job.numbers) // job.batch)):
        with safe_open(job.made / f"part_{part:04d}.safetensors", "pt") as content:
            for name in content.keys():
                found.setdefault(name, []).append(content.get_tensor(name))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _open(job: Job, stage: str) -> Any:
    model = build_model(read_model_file(job.run_dir, stage), "auto")
    return model.to(job.device)


def _seconds_of(path: Path, key: str) -> float | None:
    """How long the clips of a part took; None where the part is not there, or another model's."""
    try:
        with safe_open(path, "pt") as content:
            facts = content.metadata() or {}
        return float(facts["seconds"]) if facts.get("key") == key else None
    except (OSError, SafetensorError, KeyError):
        return None


def _on_device(model: VideoModule, batch: dict[str, Any]) -> dict[str, Any]:
    moved: dict[str, Any] = model.transfer_batch_to_device(batch, model.device, 0)
    return model.on_after_batch_transfer(moved, 0)  # type: ignore[no-any-return]


def _generate(model: Any, batch: dict[str, Any], job: Job, start: int) -> tuple[Tensor, float]:
    """Clips (B, C, T, H, W) uint8, and the seconds that they took."""
    n, frames = len(batch["video"]), batch["video"].shape[2]
    seeds = [clip_seed(job.seed, start + i) for i in range(n)]
    began = time.monotonic()
    made = model.sample(model.conditions(batch), n, frames=frames, seeds=seeds).cpu()
    seconds = time.monotonic() - began
    if made.shape != batch["video"].shape:
        wanted = tuple(batch["video"].shape)
        raise UserError(f"the model makes clips {tuple(made.shape)}, the benchmark's are {wanted}", str(job.recipe))
    if not made.isfinite().all():
        raise UserError("the model makes clips that hold numbers that are not finite", str(job.run_dir))
    return to_uint8(made).contiguous(), seconds


def _reads_class(model: Any, data: VideoDataModule, job: Job) -> bool:
    """Whether a clip of the same noise and first frame becomes another one when another class is asked for."""
    batch = read_batch(data, job.numbers[:1])
    others = (read_batch(data, [number]) for number in job.numbers[1:])
    other = next((clip for clip in others if int(clip["label"]) != int(batch["label"])), None)
    if other is None:
        return False
    made = []
    for asked in (batch, other):
        given = _on_device(model, {**batch, "label": asked["label"], "text": asked["text"]})
        frames = batch["video"].shape[2]
        made.append(model.sample(model.conditions(given), 1, frames=frames, seeds=[job.seed]).cpu())
    return not torch.equal(*made)
