"""What only a GPU can show: bf16 against fp32, step times and memory at full size, compile, and a short training.

    python -m benchmarks.gpu_check                        # make gpu-check
    python -m benchmarks.gpu_check --device cpu --tiny    # the same steps with tiny networks, to test them anywhere

Writes benchmarks/results/gpu_check_<hardware>.json. Exit code 0: all checks hold; 1: one does not (it says which);
2: there is no GPU.
"""

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Variant
from benchmarks.drift import BOUNDS, drift
from benchmarks.environment import cpu_name, facts, gpu_name, slug
from benchmarks.rows import ROWS
from benchmarks.step_time import HEADER, RESULTS, measure
from benchmarks.timing import ROOT, Subject, Worker
from vgen.files import write_json

Outcome = dict[str, Any]
CONFIGS = ROOT / "lightning_configs"


class Failed(Exception):
    """A check that ran and does not hold."""


def bf16_drift(device: str, tiny: bool) -> Outcome:
    """Outputs under bf16 autocast stay near those of fp32."""
    found = drift("dm-tiny" if tiny else "dm", device)
    beyond = [f"{name} {value:.4f} > {BOUNDS[name]}" for name, value in found.items() if not value <= BOUNDS[name]]
    if beyond:
        raise Failed("bf16 drifts: " + ", ".join(beyond))
    return {"relative_rms": found, "bounds": BOUNDS}


def variants(device: str) -> list[Subject]:
    """fp32, bf16, bf16 compiled, and fp32 with recomputed activations."""
    plain = Variant(device)
    bf16 = replace(plain, precision="bf16")
    return [
        Subject("fp32", plain),
        Subject("bf16", bf16),
        Subject("bf16 compiled", replace(bf16, compile=True)),
        Subject("fp32 checkpointing", replace(plain, checkpointing=True)),
    ]


def step_times(device: str, tiny: bool) -> Outcome:
    """Seconds and peak memory of a step; a variant that does not fit into memory takes smaller batches."""
    rows = ["lfae-tiny", "dm-tiny"] if tiny else ["lfae", "dm"]
    results = []
    print(HEADER)
    for row in rows:
        batch = ROWS[row].clips if device == "cpu" else _largest_batch(row, device)
        subjects = [
            Subject(s.name, replace(s.variant, batch=batch))
            for s in variants(device)
            if not (tiny and s.variant.compile)  # minutes of a compiler for nothing
        ]
        results += measure([row], subjects, 3 if tiny else 20, torch.get_num_threads())
    return {"rows": results}


def _largest_batch(row: str, device: str) -> int:
    """The row's batch, halved until a step in fp32 fits."""
    batch = ROWS[row].clips
    while True:
        try:
            worker = Worker(row, Subject("probe", Variant(device, batch=batch)), torch.get_num_threads())
            try:
                worker.ask("step")
            finally:
                worker.close()
        except RuntimeError:
            if batch == 1:
                raise
            batch //= 2
        else:
            return batch


def compiled_losses(device: str, tiny: bool) -> Outcome:
    """Compiled networks start from the same loss and keep to it over ten steps."""
    row, backend = ("dm-tiny", "aot_eager") if tiny else ("dm", "inductor")
    batch = 2  # enough to compare
    losses: dict[str, list[float]] = {}
    for name, on in (("eager", False), ("compiled", True)):
        variant = Variant(device, compile=on, backend=backend, batch=batch)
        worker = Worker(row, Subject(name, variant), torch.get_num_threads())
        try:
            losses[name] = [worker.ask("step")["loss"] for _ in range(10)]
        finally:
            worker.close()
    apart = max(abs(a - b) / abs(a) for a, b in zip(losses["eager"], losses["compiled"], strict=True))
    if not apart < 0.02:
        raise Failed(f"compiled losses differ by {apart:.3f} of the loss")
    return {"largest_relative_difference": apart, "losses": losses, "backend": backend}


def short_training(device: str, tiny: bool) -> Outcome:
    """Both stages of the tiny MUG recipe by the command line, on the device; the losses fall."""
    steps = 3 if tiny else 150
    with tempfile.TemporaryDirectory() as folder:
        faces, run = Path(folder, "faces"), Path(folder, "run")
        _vgen("data", "make-fake", "mug", "--out", str(faces), *(["--subjects", "4", "--takes", "1"] if tiny else []))
        began = time.monotonic()
        _vgen(
            "fit", "--config", str(CONFIGS / "lfdm_mug.yaml"), "--config", str(CONFIGS / "tiny" / "lfdm_mug.yaml"),
            "--run_dir", str(run), f"--all_stages.data.init_args.root={faces}",
            f"--all_stages.trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
            f"--all_stages.trainer.max_steps={steps}", f"--all_stages.trainer.val_check_interval={steps}",
            "--all_stages.trainer.log_every_n_steps=1",
            *([] if device == "cpu" else ["--all_stages.trainer.precision=bf16-mixed"]),
        )  # fmt: skip
        seconds = time.monotonic() - began
        stages = {stage: _losses(run / stage / "metrics.csv") for stage in ("autoencoder", "diffusion")}
    outcome: Outcome = {"seconds": seconds, "steps": steps, "stages": {}}
    for stage, losses in stages.items():
        tenth = max(1, len(losses) // 10)
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        outcome["stages"][stage] = {"first": first, "last": last, "logged": len(losses)}
        if len(losses) < steps or not all(map(math.isfinite, losses)):
            raise Failed(f"{stage}: {len(losses)} losses in {steps} steps, or one that is not finite")
        if not tiny and not last < first:
            raise Failed(f"{stage}: the loss went from {first:.3f} to {last:.3f}")
    return outcome


def _vgen(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "vgen", *arguments], cwd=ROOT, check=True)


def _losses(path: Path) -> list[float]:
    with open(path, newline="", encoding="utf-8") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


CHECKS: dict[str, Callable[[str, bool], Outcome]] = {
    "bf16_drift": bf16_drift,
    "compiled_losses": compiled_losses,
    "step_times": step_times,
    "short_training": short_training,
}


def run(device: str, tiny: bool, names: Sequence[str]) -> dict[str, Outcome]:
    """Runs the checks; one that fails does not keep the others from running."""
    outcomes: dict[str, Outcome] = {}
    for name in names:
        print(f"[{name}] {(CHECKS[name].__doc__ or name).splitlines()[0]}", flush=True)
        try:
            outcomes[name] = {"ok": True, **CHECKS[name](device, tiny)}
        except Failed as failure:
            outcomes[name] = {"ok": False, "error": str(failure)}
        except Exception as error:  # whatever a driver, a compiler or a child process has to say
            traceback.print_exc()
            outcomes[name] = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        print(f"[{name}] {'ok' if outcomes[name]['ok'] else outcomes[name]['error']}", flush=True)
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and three steps: tests the checks alone")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--out", type=Path, metavar="JSON", help="default: results/gpu_check_<hardware>.json")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check needs a CUDA device, and torch sees none; nothing was checked", file=sys.stderr)
        return 2
    content = {"benchmark": "gpu_check", "tiny": args.tiny, **facts(torch.get_num_threads())}
    content["checks"] = run(args.device, args.tiny, args.only)
    content["load_average_after"] = list(os.getloadavg())
    hardware = (gpu_name() if args.device == "cuda" else None) or cpu_name()
    out = args.out or RESULTS / f"gpu_check_{slug(hardware)}.json"
    write_json(out, content)
    print(f"written to {out}")
    return 0 if all(outcome["ok"] for outcome in content["checks"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
