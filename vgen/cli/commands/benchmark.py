"""`vgen benchmark`: train recipes of several families on the same clips for an equal small budget, and print one table.

Quality is a Fréchet distance on a small classifier of the set's own classes (frechet_small, never FVD), beside that of
real clips. The same command goes on where it was interrupted. See docs/benchmark.md.
"""

import argparse
from pathlib import Path

from vgen.cli.commands.data import SETS
from vgen.errors import UserError

_TRAIN_CLIPS = 16_000  # about what the tiny recipes take, which learn something visible in minutes

_COUNTS = ("size", "frames", "train_clips", "steps", "budget", "clips", "batch", "judge_clips", "judge_steps", "chain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--data", required=True, choices=SETS, metavar="NAME", help=f"data set: {', '.join(SETS)}")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the set (default: data/NAME)")
    parser.add_argument(
        "--data-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of its DataModule, e.g. train_clips=1000; may be repeated (moving_digits: labels=motion)",
    )
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="side of the frames (default: 64)")
    parser.add_argument("--frames", type=int, default=16, metavar="T", help="frames of a clip (default: 16)")
    parser.add_argument(
        "--recipes",
        nargs="+",
        metavar="RECIPE",
        help="names in lightning_configs, or files (default: one of every family, as `vgen models` has them)",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--train-clips",
        type=int,
        metavar="N",
        help=f"clips that each recipe sees in training, over all its stages (default: {_TRAIN_CLIPS}); unlike seconds "
        "the same on every machine, unlike steps independent of batch sizes",
    )
    budget.add_argument("--steps", type=int, metavar="N", help="optimiser steps instead")
    budget.add_argument("--budget", type=float, metavar="SECONDS", help="seconds of training on this machine instead")
    parser.add_argument("--clips", type=int, default=256, metavar="N", help="generated and real clips (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of trainings and noise; the judge's is fixed (default: 0)")
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="a second row of each recipe: its last stage with the weights that it began with",
    )
    parser.add_argument(
        "--chain",
        type=int,
        default=1,
        metavar="N",
        help="rows of each of N clips of long videos, of models that make such (default: 1, none)",
    )
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="clips generated at once (default: 16)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="for the recipes")
    parser.add_argument("--judge-clips", type=int, default=1000, metavar="N", help="training clips it sees, at most")
    parser.add_argument(
        "--judge-steps", type=int, default=600, metavar="N", help="steps of its training (default: 600)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: runs/benchmark_NAME)")


def run(args: argparse.Namespace) -> int:
    """Runs the benchmark, or goes on with it, and prints the table.

    Returns:
        0, 1 where a recipe failed, 130 after Ctrl-C, 128 + signal after SIGTERM or SIGUSR1.

    Raises:
        UserError: A wrong argument, missing data, or another benchmark in the folder.
    """
    for name in _COUNTS:
        if (value := getattr(args, name)) is not None and value <= 0:
            raise UserError(f"must be more than 0, got {value}", f"--{name.replace('_', '-')}")
    import torch

    from vgen.cli.benchmark.benchmark import Benchmark
    from vgen.cli.benchmark.clips import BenchmarkClips
    from vgen.cli.benchmark.recipes import Budget, find_recipe
    from vgen.cli.commands.models import discover
    from vgen.cli.run import quiet_expected
    from vgen.cli.trained import read_values

    quiet_expected()
    recipes = [find_recipe(name) for name in args.recipes or [card.recipe for card in discover() if card.recipe]]
    root = args.data_root or ("." if args.data == "moving_digits" else f"data/{args.data}")
    options = read_values(args.data_option, "--data-option", "train_clips=1000")
    if args.steps is not None:
        budget = Budget("steps", args.steps)
    elif args.budget is not None:
        budget = Budget("seconds", args.budget)
    else:
        budget = Budget("clips", args.train_clips or _TRAIN_CLIPS)
    benchmark = Benchmark(
        out=args.out or Path("runs") / f"benchmark_{args.data}",
        clips=BenchmarkClips(args.data, root, args.size, args.frames, options),
        recipes=recipes,
        budget=budget,
        count=args.clips,
        seed=args.seed,
        batch=args.batch,
        device=args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu",
        judge_clips=args.judge_clips,
        judge_steps=args.judge_steps,
        untrained=args.untrained,
        chain=args.chain,
    )
    try:
        rows = benchmark.run()
    except (KeyboardInterrupt, SystemExit) as stop:
        print("stopped; the same command goes on", flush=True)
        return int(stop.code or 0) if isinstance(stop, SystemExit) else 130
    print("\n".join(["", *benchmark.text(rows), "", f"written to {benchmark.out}/benchmark.json, .csv and .md"]))
    return int(any(row.error for row in rows))
