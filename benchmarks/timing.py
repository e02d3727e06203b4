"""Times variants of a step side by side: one process each, one step in turn.

On a machine that others use, times of minutes apart cannot be compared. Here the variants take turns step by step (in
alternating order), and what is compared is the ratio within each pair, by its median and quartiles.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.cases import Variant

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Subject:
    """What is measured under which name; see `benchmarks.worker` for `path`."""

    name: str
    variant: Variant = field(default_factory=Variant)
    path: str | None = None


@dataclass
class Timed:
    """Seconds of each measured step, wall clock and processor, in order; and the first loss.

    The processor's seconds count the whole process and mean something on one thread and without a GPU alone.
    """

    subject: Subject
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def summary(self, clips: int) -> dict[str, Any]:
        """A row of the result file."""
        q1, median, q3 = quartiles(self.wall)
        return {
            "variant": self.subject.name,
            "settings": asdict(self.subject.variant),
            "wall_s": {"median": median, "q1": q1, "q3": q3, "all": [round(t, 4) for t in self.wall]},
            "cpu_s": {"median": statistics.median(self.cpu), "all": [round(t, 4) for t in self.cpu]},
            "clips_per_s": clips / median,
            "peak_mb": self.peak_bytes / 2**20,
            "first_losses": self.losses[:3],
        }


class Worker:
    """The parent's end of a `benchmarks.worker`."""

    def __init__(self, row: str, subject: Subject, threads: int) -> None:
        job = {"row": row, "variant": asdict(subject.variant), "subject": subject.path, "threads": threads}
        variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(job)],
            cwd=ROOT,
            env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.description = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            raise RuntimeError(f"a benchmark process ended with code {self.process.wait()}; its error stands above")
        return cast(dict[str, Any], json.loads(line))

    def ask(self, what: str) -> dict[str, Any]:
        """Sends a request (`step` or `memory`) and waits for the answer."""
        pipe = cast(IO[str], self.process.stdin)
        pipe.write(json.dumps({"ask": what}) + "\n")
        pipe.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        cast(IO[str], self.process.stdin).close()
        self.process.wait()


@contextmanager
def _workers(row: str, subjects: Sequence[Subject], threads: int) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = []
        for subject in subjects:
            workers.append(Worker(row, subject, threads))
            stack.callback(workers[-1].close)
        yield workers


def take_turns(row: str, subjects: Sequence[Subject], repeats: int, threads: int, warmup: int = 2) -> list[Timed]:
    """Times one step of each subject in turn, `repeats` times, after a warm-up; then asks for peak memory."""
    timed = [Timed(subject) for subject in subjects]
    with _workers(row, subjects, threads) as workers:
        for turn in range(warmup + repeats):
            order = list(zip(workers, timed, strict=True))
            for worker, times in order if turn % 2 == 0 else reversed(order):
                answer = worker.ask("step")
                times.losses.append(answer["loss"])
                if turn >= warmup:
                    times.wall.append(answer["wall"])
                    times.cpu.append(answer["cpu"])
        for worker, times in zip(workers, timed, strict=True):
            times.peak_bytes = worker.ask("memory")["peak_bytes"]
    return timed


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, median, q3


def ratio(first: Timed, second: Timed) -> dict[str, Any]:
    """How many times longer the second takes: quartiles of the ratios within each pair."""
    result: dict[str, Any] = {"of": second.subject.name, "to": first.subject.name}
    for clock in ("wall", "cpu"):
        pairs = zip(getattr(first, clock), getattr(second, clock), strict=True)
        q1, median, q3 = quartiles([theirs / ours for ours, theirs in pairs])
        result[clock] = {"median": median, "q1": q1, "q3": q3}
    return result
