"""Starts runs in processes of their own, whose end, signals and output a test looks at."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from tests.mechanics.runs import RECIPE, REPOSITORY, command
from vgen.cli.main import main

OF_LAUNCHERS = (
    "VGEN_PLAN", "VGEN_KILL", "VGEN_SIGNAL", "TOY_TRAP", "LOCAL_RANK", "RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


class Processes:
    """Processes of one command, and the file that they write to.

    Args:
        output: The file.
        environment: Variables of all processes, beside this one's own.
    """

    def __init__(self, output, environment):
        self.output = Path(output)
        self.output.write_text("")
        kept = {key: value for key, value in os.environ.items() if key not in OF_LAUNCHERS}
        self.environment = kept | {"PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled"} | environment
        self.pids = []
        self.codes = []

    def start(self, line, **environment):
        """Starts a program in a process group of its own."""
        with open(self.output, "a") as file:
            process = subprocess.Popen(
                line, env=self.environment | environment, stdout=file, stderr=subprocess.STDOUT,
                cwd=self.output.parent, process_group=self.pids[0] if self.pids else 0,
            )  # fmt: skip
        self._add(process.pid)

    def fork(self, arguments, **environment):
        """Runs `vgen` in a copy of this process: seconds quicker than a new one, which would import everything."""
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, self.pids[0] if self.pids else 0)
                os.environ.clear()
                os.environ.update(self.environment | environment)
                file = os.open(self.output, os.O_WRONLY | os.O_APPEND)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
                logging.getLogger().handlers.clear()  # pytest's, which would keep warnings to themselves
                # What Lightning looks up when it is imported.
                rank_zero_only.rank = int(environment.get("RANK") or environment.get("SLURM_PROCID") or 0)
                code = main(arguments)
            except BaseException:
                traceback.print_exc()
                code = 99
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self._add(pid)

    def _add(self, pid):
        self.pids.append(pid)
        self.codes.append(None)

    def signal(self, signum):
        """Signals the first process."""
        os.kill(self.pids[0], signum)

    def signal_all(self, signum):
        """Signals every process: ranks, and the loaders' workers."""
        os.killpg(self.pids[0], signum)

    def await_output(self, text, seconds=900):
        """Waits until the processes have printed something."""
        self._until(lambda: text in self.output.read_text(), seconds, f"waiting for {text!r}")

    def wait(self, seconds=900):
        """Exit codes of all processes (negative: the signal that has ended it) and their output, when none is left."""
        self._until(self._ended, seconds, "still running")
        return self.codes, self.output.read_text()

    def _ended(self):
        for rank, pid in enumerate(self.pids):
            if self.codes[rank] is None:
                done, status = os.waitpid(pid, os.WNOHANG)
                self.codes[rank] = os.waitstatus_to_exitcode(status) if done else None
        if None in self.codes:
            return False
        try:  # what they have started: ranks, loader workers
            os.killpg(self.pids[0], 0)
        except ProcessLookupError:
            return True
        return False

    def _until(self, condition, seconds, what):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                os.killpg(self.pids[0], signal.SIGKILL)
                raise AssertionError(f"{what} after {seconds} s:\n{self.output.read_text()}")
            time.sleep(0.02)


def begin(run_dir, *arguments, recipe=RECIPE, ranks=1, launcher="fork", **environment):
    """Begins `vgen fit`.

    Args:
        run_dir: Run directory; the output goes to a file beside it.
        arguments: Further arguments.
        recipe: The recipe.
        ranks: Number of ranks.
        launcher: `fork`: copies of this process, which meet as under torchrun; `lightning`: the command itself, which
            starts its further ranks; `torchrun`.
        environment: Further variables.
    """
    run_dir = Path(run_dir)
    meeting = {"TORCHELASTIC_RUN_ID": "test"} if launcher == "fork" and ranks > 1 else {}
    processes = Processes(run_dir.with_name(f"{run_dir.name}.output"), meeting | environment)
    devices = [f"--all_stages.trainer.devices={ranks}"] if ranks > 1 else []
    line = command(run_dir, *arguments, *devices, recipe=recipe)
    if launcher == "lightning":
        processes.start([sys.executable, "-m", "vgen", *line])
    elif launcher == "torchrun":
        port = f"--master-port={free_port()}"
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", port]
        processes.start([*torchrun, "-m", "vgen", *line])
    elif ranks == 1:
        processes.fork(line)
    else:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
        for rank in map(str, range(ranks)):
            processes.fork(line, **meeting, RANK=rank, LOCAL_RANK=rank)
    return processes


def apart(run_dir, *arguments, **options):
    """Runs a command to its end; returns exit codes and output."""
    return begin(run_dir, *arguments, **options).wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
