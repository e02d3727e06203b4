"""Kills runs at random places, lets the same command go on, and compares what they leave with uninterrupted runs.

    python -m tests.mechanics.torture --kills 20 --seed 7

Two systems: the toy of these tests, and an LFDM of a few thousand weights on drawn faces; both in two stages, on one
rank and on two. Prints a line for each kill and a verdict; ends with code 1 at the first difference.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

import tests.conftest  # noqa: F401  threads, network, caches
from tests.mechanics.processes import apart
from tests.mechanics.runs import RECIPE, STAGES, run_differences, with_callbacks
from tests.tiny_lfdm import recipe as lfdm_recipe
from tests.tiny_lfdm import write_faces

KILLER = "tests.mechanics.killer.Killer"
# How often each phase is passed in a stage, at least.
COUNTS = {"step": 5, "write": 2, "rename": 2, "renamed": 2, "validation": 1, "done": 1, "between": 1}


@dataclass(frozen=True)
class Kill:
    """One kill.

    Args:
        system: `toy` or `lfdm`.
        ranks: Number of ranks.
        launcher: Who starts them (see `tests.mechanics.processes.begin`).
        stage: Stage.
        phase: See `tests.mechanics.killer`.
        count: At which passing of the phase.
        who: `rank<r>` or `all`.
    """

    system: str
    ranks: int
    launcher: str
    stage: str
    phase: str
    count: int
    who: str

    @property
    def variable(self):
        return f"{self.stage}:{self.phase}:{self.count}:{self.who}"

    def __str__(self):
        where = "1 rank " if self.ranks == 1 else f"{self.ranks} ranks ({self.launcher})"
        return f"{self.system:<4} {where:<19} {self.variable:<32}"


def draw(rng, number):
    """Every second kill is of the LFDM, every second pair of two ranks; the rest is chance."""
    system, ranks = ("toy", "lfdm")[number % 2], (1, 2)[number // 2 % 2]
    launcher = rng.choice(("fork", "lightning")) if ranks > 1 else "fork"
    phase = rng.choice(list(COUNTS))
    who = ["rank0"]
    if ranks > 1:
        who += ["all", "rank1"] if phase in ("step", "validation") else ["all"]
    return Kill(system, ranks, launcher, rng.choice(STAGES), phase, rng.randint(1, COUNTS[phase]), rng.choice(who))


def write_recipes(folder):
    """The recipes of both systems, with the killer among the callbacks."""
    toy = with_callbacks(folder / "toy.yaml", "killer.Killer", recipe=RECIPE)
    lfdm = lfdm_recipe(write_faces(folder / "faces"))
    checkpoint = {"class_path": "vgen.callbacks.Checkpoint", "init_args": {"every_n_steps": 2}}
    for stage in lfdm["stages"].values():
        callbacks = [*stage["trainer"].get("callbacks", []), checkpoint, {"class_path": KILLER}]
        settings = {"max_steps": 5, "val_check_interval": 3, "limit_val_batches": 1, "callbacks": callbacks}
        stage["trainer"] = stage["trainer"] | settings
    path = folder / "lfdm.yaml"
    path.write_text(yaml.safe_dump(lfdm, sort_keys=False))
    return {"toy": toy, "lfdm": path}


def torture(kills, seed, folder, only=None):
    """Runs it; returns the exit code."""
    rng, recipes, wholes = random.Random(seed), write_recipes(folder), {}
    for number in range(kills):
        kill = draw(rng, number)
        recipe = recipes[kill.system]
        if (kill.system, kill.ranks) not in wholes:
            whole = folder / f"{kill.system}{kill.ranks}"
            codes, output = apart(whole, recipe=recipe, ranks=kill.ranks)
            if any(codes):
                print(f"the uninterrupted run of {kill.system} failed\n{output}")
                return 1
            wholes[kill.system, kill.ranks] = whole
        if only is not None and number + 1 != only:
            continue
        run, begun = folder / f"kill{number + 1}", time.monotonic()
        options = {"recipe": recipe, "ranks": kill.ranks, "launcher": kill.launcher}
        codes, output = apart(run, VGEN_KILL=kill.variable, **options)
        killed, begun = time.monotonic() - begun, time.monotonic()
        trouble = [] if "killer: now" in output else [f"the place was not reached (codes {codes})"]
        if not trouble:
            codes, output = apart(run, "--resume", **options)
            # The row of a step is written behind its checkpoint: a kill in between costs it.
            trouble = [f"codes {codes}"] if any(codes) else []
            lost = int(kill.phase == "renamed")
            trouble += run_differences(wholes[kill.system, kill.ranks], run, STAGES, ("last", "best"), lost)
        went_on = time.monotonic() - begun
        verdict = "DIFFERENT" if trouble else "same"
        print(f"{number + 1:>3}/{kills} {kill} killed {killed:5.1f} s, went on {went_on:5.1f} s  {verdict}", flush=True)
        if trouble:
            print("\n".join([*trouble[:20], output, f"again: --seed {seed} --kills {kills} --only {number + 1}"]))
            return 1
    print(f"{kills} kills, seed {seed}: every run ended with weights, averages and optimisers as without the kill")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, help="default: by chance, and printed")
    parser.add_argument("--only", type=int, metavar="N", help="of these kills, the N-th alone")
    chosen = parser.parse_args()
    number = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"seed {number}", flush=True)
    with tempfile.TemporaryDirectory(prefix="vgen-torture-") as place:
        sys.exit(torture(chosen.kills, number, Path(place), chosen.only))
