"""Time and peak memory of a training step.

    python -m benchmarks.step_time                                  # LFAE-S and DM-S, one thread, fp32
    python -m benchmarks.step_time --rows lfae dm --device cuda     # the published sizes
    python -m benchmarks.step_time --against ../other_checkout      # two checkouts, step by step in turn

`--against` takes the root of another checkout, or a Python file that defines `build(row, device)`, which returns a
function that does one step. Results go to benchmarks/results/step_time_<hardware>.json.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Variant
from benchmarks.environment import cpu_name, facts, gpu_name, slug
from benchmarks.rows import ROWS
from benchmarks.timing import Subject, Timed, ratio, take_turns
from vgen.files import write_json

RESULTS = Path(__file__).parent / "results"


def measure(rows: Sequence[str], subjects: Sequence[Subject], repeats: int, threads: int) -> list[dict[str, Any]]:
    """Measures rows one after another and prints them as they come; the first subject is what ratios refer to."""
    results = []
    for name in rows:
        timed = take_turns(name, subjects, repeats, threads)
        clips = subjects[0].variant.batch or ROWS[name].clips
        ratios = [ratio(timed[0], other) for other in timed[1:]]
        entry = {"row": name, "what": ROWS[name].what, "clips": clips, "repeats": repeats}
        results.append(entry | {"variants": [t.summary(clips) for t in timed], "ratios": ratios})
        _print_row(name, timed, ratios)
    return results


HEADER = f"{'row':<10} {'variant':<24} {'s/step (quartiles)':>24} {'cpu s':>8} {'peak MB':>8}"


def _print_row(name: str, timed: Sequence[Timed], ratios: Sequence[dict[str, Any]]) -> None:
    for times in timed:
        row = times.summary(1)
        wall = row["wall_s"]
        spread = f"{wall['median']:.3f} ({wall['q1']:.3f}-{wall['q3']:.3f})"
        cpu = row["cpu_s"]["median"]
        print(f"{name:<10} {times.subject.name:<24} {spread:>24} {cpu:>8.3f} {row['peak_mb']:>8.0f}", flush=True)
    for one in ratios:
        wall, cpu = one["wall"], one["cpu"]
        print(
            f"{name:<10} {one['of']} / {one['to']}: {wall['median']:.2f} ({wall['q1']:.2f}-{wall['q3']:.2f}) by wall "
            f"clock, {cpu['median']:.2f} ({cpu['q1']:.2f}-{cpu['q3']:.2f}) by processor time",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="default: lfae-s dm-s; on cuda lfae dm")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15, help="measured steps of each variant (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (default 1)")
    parser.add_argument("--batch", type=int, default=0, help="clips in a batch, where the row's own do not fit")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--compile", action="store_true", help="compile the trainable networks")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--against", metavar="PATH", help="another checkout, or a file with build(row, device)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="default: results/step_time_<hardware>.json")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here")
        return 2
    variant = Variant(
        args.device, args.precision, compile=args.compile, checkpointing=args.checkpointing, batch=args.batch
    )
    subjects = [Subject("vgen", variant)]
    if args.against:
        path = Path(args.against).resolve()
        if not path.exists():
            parser.error(f"--against: {path} does not exist")
        subjects.append(Subject(path.stem, variant, str(path)))
    rows = args.rows or (["lfae", "dm"] if args.device == "cuda" else ["lfae-s", "dm-s"])
    content = {"benchmark": "step_time", **facts(args.threads)}
    print(HEADER)
    content["rows"] = measure(rows, subjects, args.repeats, args.threads)
    content["load_average_after"] = list(os.getloadavg())
    hardware = (gpu_name() if args.device == "cuda" else None) or cpu_name()
    out = args.out or RESULTS / f"step_time_{slug(hardware)}.json"
    write_json(out, content)
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
