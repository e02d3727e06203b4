"""Starts toy runs, in this process or in one of their own, and compares what they leave."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import torch

from vgen.cli.main import main

REPOSITORY = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("recipe.yaml")
# Pickle may write equal contents in different ways after a resume (a string once or twice), so hashes may differ.
OF_THE_RUN = (
    "/vgen/init_args/codec/sha256",
    "/vgen/init_args/content/sha256",
    "/vgen/run",  # every training has an id of its own
)
STAGES = ("autoencoder", "diffusion")


def command(run_dir, *arguments, recipe=RECIPE, command="fit"):
    """The arguments of `vgen` for a toy run."""
    return [command, "--config", str(recipe), "--run_dir", str(run_dir), *map(str, arguments)]


def fit(run_dir, *arguments, recipe=RECIPE, code=0):
    """Runs `vgen fit` in this process; returns the run directory."""
    assert main(command(run_dir, *arguments, recipe=recipe)) == code
    return Path(run_dir)


def with_callbacks(path, *names, recipe=RECIPE):
    """Writes a copy of the recipe in which every stage has further callbacks of the tests; returns its path."""
    added = "".join(f"        - {{class_path: tests.mechanics.{name}}}\n" for name in names)
    path.write_text(Path(recipe).read_text().replace("      callbacks:\n", f"      callbacks:\n{added}"))
    return path


def fit_apart(run_dir, *arguments, recipe=RECIPE, trap=None, seconds=240):
    """Runs `python -m vgen fit` in a process of its own; returns what subprocess.run returns."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VGEN_PLAN", "LOCAL_RANK", "TOY_TRAP")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled"} | ({"TOY_TRAP": trap} if trap else {})
    line = [sys.executable, "-m", "vgen", *command(run_dir, *arguments, recipe=recipe)]
    folder = Path(run_dir).parent
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=seconds, cwd=folder)


def checkpoint(run_dir, stage="diffusion", name="last"):
    """Content of a checkpoint, read as safely as users' files are."""
    return torch.load(checkpoint_path(run_dir, stage, name), weights_only=True)


def checkpoint_path(run_dir, stage="diffusion", name="last"):
    return Path(run_dir) / stage / "checkpoints" / f"{name}.ckpt"


def leaves(value, key=""):
    """Every value of nested dicts and lists, by its path."""
    if isinstance(value, dict):
        return {name: leaf for k, v in value.items() for name, leaf in leaves(v, f"{key}/{k}").items()}
    if isinstance(value, (list, tuple)):
        return {name: leaf for i, v in enumerate(value) for name, leaf in leaves(v, f"{key}/{i}").items()}
    return {key: value}


def differences(one, other):
    """Paths at which two nested structures differ, to the last bit."""
    a, b = leaves(one), leaves(other)

    def same(x, y):
        return torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x == y

    return [key for key in sorted(a.keys() | b.keys()) if key not in a or key not in b or not same(a[key], b[key])]


def rows(run_dir, stage="diffusion", timed=False):
    """The rows of metrics.csv; without `timed`, only what does not depend on the clock."""
    with open(Path(run_dir) / stage / "metrics.csv", newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if timed or (k != "seconds" and not k.startswith("perf/"))} for row in found]


def run_differences(one, other, stages=STAGES, names=("last",), lost_rows=0):
    """What two runs have left differently: weights, averages, optimisers, schedules, counters, to the last bit; rows.

    Up to `lost_rows` rows of the other run's logs may be missing: a row is written behind the checkpoint of its step.
    """
    found = []
    for stage in stages:
        for name in names:
            if not checkpoint_path(one, stage, name).is_file() and not checkpoint_path(other, stage, name).is_file():
                continue
            a, b = checkpoint(one, stage, name), checkpoint(other, stage, name)
            keys = [key for key in differences(a, b) if key not in OF_THE_RUN]
            found += [f"{stage}/{name}{key}" for key in keys]
        a, b = rows(one, stage), rows(other, stage)
        missing, added = [row for row in a if row not in b], [row for row in b if row not in a]
        if added or len(missing) > lost_rows or (not missing and a != b):
            found.append(f"{stage}/metrics.csv: {len(missing)} rows missing, {len(added)} others")
    return found


def assert_same(one, other, stages=STAGES, names=("last",)):
    """Two runs have left the same weights, averages, optimisers, schedules, counters and numbers, to the last bit."""
    found = run_differences(one, other, stages, names)
    assert not found, found
