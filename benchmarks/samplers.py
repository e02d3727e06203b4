"""Samplers of one trained run, at given numbers of network calls: quality against calls and seconds.

    python -m benchmarks.samplers runs/vidm_digits --data moving_digits --size 32 --frames 8 --calls 5 10 20
    python -m benchmarks.samplers runs/vidm_digits --stage content --data moving_digits --size 32 --single-frames \
        --calls 5 10 20 50 1000

Every sampler makes the same clips: held-out ones give first frames and classes, where the model reads them, and the
seeds are the same. Quality is `frechet_small` (no FVD) against other held-out clips, of single frames with
--single-frames, for a judge that `vgen benchmark` would train on the same data. Calls are those of one clip, or of one
frame where a model makes a clip frame by frame. What is finished is kept, and the same command goes on.

Writes settings.json, judge/, <sampler>_<calls>.{safetensors,json}, samplers.{json,md,png} to --out.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vgen
from benchmarks.environment import facts
from vgen.cli.benchmark.clips import BenchmarkClips, read_batch
from vgen.cli.benchmark.judging import Judging
from vgen.data.datamodules import DATA_SETS
from vgen.diffusion import (
    DDIM,
    DDPM,
    Ancestral,
    ContinuousDiffusion,
    DiffusersSampler,
    DPMSolverPP,
    KarrasSampler,
    Picard,
    PredictorCorrector,
    RespacedDDPM,
    Sampler,
    UniPC,
)
from vgen.errors import UserError
from vgen.files import write_atomic, write_json, write_text
from vgen.metrics.detectors.base import tensor_hash
from vgen.metrics.image_to_video import clip_seed
from vgen.video import to_uint8

Make = Callable[[int], Sampler]
#: By name: the sampler of so many network calls, for tables of steps and for continuous time.
DISCRETE: dict[str, Make] = {
    "ancestral": lambda n: RespacedDDPM(n),
    "ancestral_vdm": lambda n: Ancestral(n),
    "ddim": lambda n: DDIM(n, eta=0.0),
    "ddim_picard": lambda n: Picard(DDIM(n, eta=0.0)),
    "dpmpp_2m": lambda n: DPMSolverPP(n, 2),
    "dpmpp_2m_sde": lambda n: DPMSolverPP(n, 2, sde=True),
    "unipc": lambda n: UniPC(n, 2),
    "deis": lambda n: DiffusersSampler("DEISMultistep", n),
    "pndm": lambda n: DiffusersSampler("PNDM", n - 1),
}
CONTINUOUS: dict[str, Make] = {
    "euler": lambda n: KarrasSampler(n, "euler"),
    "heun": lambda n: KarrasSampler((n + 1) // 2),
    "euler_maruyama": lambda n: PredictorCorrector(n, "euler_maruyama", "none", end=1e-3),
    "predictor_corrector": lambda n: PredictorCorrector(n // 2),
}


@dataclass(frozen=True)
class Entry:
    """One point of the table: a sampler at a number of calls."""

    name: str
    calls: int

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.name}_{self.calls}"


def sampler_of(entry: Entry, process: Any) -> Sampler:
    """The sampler of an entry.

    Raises:
        UserError: It is none of this process, or cannot take so many calls.
    """
    table = CONTINUOUS if isinstance(process, ContinuousDiffusion) else DISCRETE
    if entry.name not in table:
        raise UserError(f"{entry.name} is none of this process's samplers", "--samplers", ", ".join(table))
    if isinstance(process, ContinuousDiffusion):
        return table[entry.name](entry.calls)
    if entry.calls > process.steps:
        raise UserError(f"the model has {process.steps} steps, not {entry.calls}", "--calls")
    if entry.calls == process.steps and entry.name == "ancestral":
        return DDPM()
    if entry.calls == process.steps and entry.name in ("ddim", "ddim_picard"):
        raise UserError(f"{entry.name} takes fewer than all {process.steps} steps", "--calls", "use ancestral")
    return table[entry.name](entry.calls)


def generate(
    model: Any, sampler: Sampler, batches: Sequence[Mapping[str, Any]], frames: int, seed: int
) -> tuple[Tensor, float]:
    """Clips (N, C, T, H, W) uint8 for all conditions, and the seconds that they took."""
    made, began, start = [], time.monotonic(), 0
    for batch in batches:
        n = len(batch["video"])
        seeds = [clip_seed(seed, start + i) for i in range(n)]
        clips = model.sample(model.conditions(batch), n, frames=frames, seeds=seeds, options={"sampler": sampler})
        made.append(to_uint8(clips.clamp(-1, 1).cpu()).contiguous())
        start += n
    return torch.cat(made), time.monotonic() - began


class Comparison:
    """Samplers of one run, entry by entry; what lies in the folder is not made again.

    Args:
        run: Run directory, or an exported model.
        stage: Of the run; None is the last.
        out: Folder of the results.
        clips: The data, which need not be the run's own but has its size.
        count: Clips of every entry.
        seed: Of the noise.
        batch: Clips generated at once.
        single_frames: Measure one frame of each clip, for models of frames.
        judge_clips: Most training clips that the judge sees.
        judge_steps: Steps of its training.
    """

    def __init__(
        self,
        run: str,
        stage: str | None,
        out: Path,
        clips: BenchmarkClips,
        count: int,
        seed: int = 0,
        batch: int = 16,
        single_frames: bool = False,
        judge_clips: int = 1000,
        judge_steps: int = 600,
    ) -> None:
        self.model = vgen.load(run, stage=stage)
        self.out, self.clips, self.seed, self.batch = out, clips, seed, batch
        self.judging = Judging(clips, count, out / "judge", judge_clips, judge_steps)
        self.single_frames = single_frames
        self.settings = {
            "run": Path(run).name,
            "stage": stage,
            "model": type(self.model).__name__,
            "weights": _fingerprint(self.model),
            "data": {"name": clips.name, **{k: v for k, v in clips.init_args.items() if k != "root"}},
            "clips": len(self.judging.sources),
            "seed": seed,
            "batch": batch,
            "single_frames": single_frames,
            "judge": {"clips": judge_clips, "steps": judge_steps},
        }
        self._claim()

    def _claim(self) -> None:
        path = self.out / "settings.json"
        settings = json.loads(json.dumps(self.settings))
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
            raise UserError("another comparison lies there", str(self.out), "choose another --out, or delete it")
        write_json(path, settings)

    def run(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """Rows of all entries, which fit before the first is made; the table is written after each."""
        process = self.model.diffusion
        samplers = {entry: sampler_of(entry, process) for entry in entries}
        rows = []
        for entry, sampler in samplers.items():
            rows.append(self._row(entry, sampler, sampler.calls(process)))
            self._write(rows)
            score = rows[-1]["frechet_small"]
            print(
                f"{entry.name:<22} {rows[-1]['calls']:>5} calls {rows[-1]['seconds']:>9.1f} s {score:>9.3f}", flush=True
            )
        return rows

    def _row(self, entry: Entry, sampler: Sampler, calls: int) -> dict[str, Any]:
        """One row; a sampler at other numbers of calls may make its own number (heun), which the row says."""
        path = self.out / f"{entry.stem}.json"
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        store = path.with_suffix(".safetensors")
        if not store.is_file():
            made, seconds = generate(self.model, sampler, self._batches(), self.clips.frames, self.seed)
            save = partial(save_file, {"clips": made, "seconds": torch.tensor(seconds, dtype=torch.float64)})
            write_atomic(store, save)
        content = load_file(store)
        found = self.judging.judge.scores(self._still(content["clips"]))
        distance = found["frechet_small"]
        row = {
            "sampler": entry.name,
            "asked": entry.calls,
            "calls": calls,
            "seconds": float(content["seconds"]),
            "seconds_per_clip": float(content["seconds"]) / len(content["clips"]),
            "frechet_small": distance["value"],
            "floor": distance["floor"]["value"],
            "diversity": found["diversity"]["value"],
            "n": distance["n"],
        }
        write_json(path, row)
        return row

    def _batches(self) -> list[dict[str, Any]]:
        numbers, batches = self.judging.sources, []
        for start in range(0, len(numbers), self.batch):
            batch = read_batch(self.clips.module, numbers[start : start + self.batch])
            batches.append(self.model.on_after_batch_transfer(batch, 0))
        return batches

    def _still(self, clips: Tensor) -> Tensor:
        """What is judged: clips, or the first frame of each."""
        return clips[:, :, :1] if self.single_frames else clips

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        write_json(
            self.out / "samplers.json", {"settings": self.settings, **facts(torch.get_num_threads()), "rows": rows}
        )
        write_text(self.out / "samplers.md", as_markdown(rows))
        plot(rows, self.out / "samplers.png")


def _fingerprint(model: torch.nn.Module) -> str:
    return tensor_hash(torch.cat([p.detach().flatten().cpu().float() for p in model.parameters()]))


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table."""
    columns = ("calls", "seconds_per_clip", "frechet_small", "diversity")
    lines = [f"| {' | '.join(['sampler', *columns])} |", "|" + "---|" * 5]
    for row in rows:
        calls, *others = (row[name] for name in columns)
        lines.append(f"| {' | '.join([row['sampler'], str(calls), *(f'{value:.3f}' for value in others)])} |")
    floor = f"\nReal clips of the same number: {rows[0]['floor']:.3f}; {rows[0]['n']} clips each.\n"
    return "\n".join(lines) + "\n" + floor


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Distance against calls and against seconds, a line for each sampler, the real clips' as a dashed one."""
    from matplotlib.figure import Figure  # slow import; no window is opened

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, key, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("calls", "seconds_per_clip"),
        ("network calls", "seconds per clip"),
        strict=True,
    ):
        for name in dict.fromkeys(row["sampler"] for row in rows):
            own = sorted((row[key], row["frechet_small"]) for row in rows if row["sampler"] == name)
            axis.plot(*zip(*own, strict=True), marker="o", label=name)
        axis.axhline(rows[0]["floor"], color="0.5", linestyle="--", label="real")
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("frechet_small")
    figure.axes[0].legend()
    write_atomic(path, lambda part: figure.savefig(part, format="png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.samplers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="run directory, or an exported model")
    parser.add_argument("--stage", help="default: the last")
    parser.add_argument("--data", choices=list(DATA_SETS), default="moving_digits")
    parser.add_argument("--root", default=".", help="folder of the data")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (with --single-frames one is made)")
    parser.add_argument("--single-frames", action="store_true", help="for models of frames")
    parser.add_argument("--samplers", nargs="+", help="default: all of the model's process")
    parser.add_argument("--calls", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--judge-clips", type=int, default=1000)
    parser.add_argument("--judge-steps", type=int, default=600)
    parser.add_argument("--out", type=Path, help="default: <run>/samplers")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        options = {"labels": "digit"} if args.data == "moving_digits" and args.single_frames else {}
        clips = BenchmarkClips(args.data, args.root, args.size, 1 if args.single_frames else args.frames, options)
        out = args.out or Path(args.run) / "samplers"
        work = Comparison(
            args.run,
            args.stage,
            out,
            clips,
            args.clips,
            args.seed,
            args.batch,
            args.single_frames,
            args.judge_clips,
            args.judge_steps,
        )
        table = CONTINUOUS if isinstance(work.model.diffusion, ContinuousDiffusion) else DISCRETE
        entries = [Entry(name, calls) for calls in args.calls for name in args.samplers or table]
        if not args.samplers:  # of the default, what can take so many calls
            entries = [entry for entry in entries if _fits(entry, work.model.diffusion)]
        work.run(entries)
    except UserError as error:
        print(error)
        return 2
    print(f"written to {out}")
    return 0


def _fits(entry: Entry, process: Any) -> bool:
    try:
        sampler_of(entry, process)
    except UserError:
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
