"""The processes of one command: which of them decides what is to be done, how the others hear of it, and how they end.

The ranks that Lightning starts on one machine inherit the decision in an environment variable (`vgen.cli.stages`).
Processes that torchrun, srun or a person on each machine has started know nothing of each other: the first of them
decides, and tells the others through the key-value store at MASTER_ADDR:MASTER_PORT, where the process group meets
afterwards. Under torchrun the store is the agent's; elsewhere the first process serves it, and PyTorch's process group
uses the same server later (`multi_tenant`), so that the port is opened once.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from vgen.errors import UserError

_ENVIRONMENTS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)  # as Lightning's Trainer
_PATIENCE = timedelta(minutes=10)  # for the first process to import, parse and look for the data
_LAST_WORDS = 30.0  # seconds that a first process that gives up stays for the others to hear it
_REASON = 5.0  # seconds that the first process, cut off from a rank, waits for word of its end
_WATCH = "vgen rank watch"  # name of the threads
_decisions = itertools.count()  # of this process; all processes take the same ones in the same order


@dataclass(frozen=True)
class Meeting:
    """Where processes that were started from outside meet.

    Args:
        address: Host of the store.
        port: Port of the store.
        first: Whether this process decides.
        others: Number of the processes that are told; None where nothing says it.
    """

    address: str
    port: int
    first: bool
    others: int | None


def find_environment() -> ClusterEnvironment | None:
    """What a launcher (torchrun, srun, ...) says about this process; None without one."""
    return next((kind() for kind in _ENVIRONMENTS if kind.detect()), None)


def find_meeting() -> Meeting | None:
    """The meeting of this command's processes; None where there is nobody to be told."""
    environment = find_environment()
    if environment is not None:
        size = environment.world_size()
        first = environment.global_rank() == 0
        return Meeting(environment.main_address, environment.main_port, first, size - 1) if size > 1 else None
    # One command on each machine (NODE_RANK), or every process by hand (LOCAL_RANK), as Lightning's guide has it.
    known = os.environ.keys()
    if not ({"MASTER_ADDR", "MASTER_PORT"} <= known and {"NODE_RANK", "LOCAL_RANK"} & known):
        return None
    first = all(int(os.environ.get(name, "0")) == 0 for name in ("NODE_RANK", "LOCAL_RANK"))
    return Meeting(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), first, None)


@cache  # the server lives as long as the process
def _store(meeting: Meeting) -> TCPStore:
    try:
        return TCPStore(
            meeting.address,
            meeting.port,
            is_master=meeting.first and not _served_by_agent(),
            timeout=_PATIENCE,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        raise UserError(
            f"the processes of this command cannot meet: {str(error).splitlines()[0][:200]}",
            f"MASTER_ADDR={meeting.address} MASTER_PORT={meeting.port}",
            "is the port free on the first machine, and can the others reach it?",
        ) from error


def _served_by_agent() -> bool:
    """Whether torchrun's agent holds the store, and not the first process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _meet_elsewhere(store: TCPStore, key: str, first: bool) -> None:
    """Gives the process group a store of its own.

    In the agent's, ranks that were started again would find the addresses of those that have died (torch 2.13).
    """
    if first:
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    os.environ["MASTER_PORT"] = store.get(key).decode()
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def agree(decide: Callable[[], str]) -> str:
    """Runs `decide` in the first process alone, and returns its text in all processes of the command.

    Where `decide` fails, the first process raises what it raised, and the others end silently with the same code.

    Raises:
        UserError: The processes cannot reach each other.
        SystemExit: In the other processes, where the first one gave up.
    """
    meeting = find_meeting()
    if meeting is None:
        return decide()
    store = _store(meeting)
    # Started anew by torchrun, the processes may meet at the store that the last ones have used.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt != "0" and _served_by_agent():
        _meet_elsewhere(store, f"vgen/{attempt}/port", meeting.first)
    key = f"vgen/{attempt}/{next(_decisions)}"
    if not meeting.first:
        return _hear(store, key, meeting)
    try:
        text = decide()
    except BaseException as error:
        code = 2 if isinstance(error, UserError) else 130 if isinstance(error, KeyboardInterrupt) else 1
        code = int(error.code or 0) if isinstance(error, SystemExit) and str(error.code or 0).isdigit() else code
        store.set(key, json.dumps({"code": code}))
        _linger(store, key, meeting, _LAST_WORDS)
        raise
    store.set(key, json.dumps({"text": text}))
    if meeting.others is not None:
        _linger(store, key, meeting, _PATIENCE.total_seconds())
    return text


def _hear(store: TCPStore, key: str, meeting: Meeting) -> str:
    try:
        message = json.loads(store.get(key))
        store.add(f"{key}/heard", 1)
    except RuntimeError as error:
        where = f"MASTER_ADDR={meeting.address} MASTER_PORT={meeting.port}"
        raise UserError("the first process has ended before it told this one what to do", where) from error
    if "code" in message:
        raise SystemExit(message["code"])
    return str(message["text"])


def _linger(store: TCPStore, key: str, meeting: Meeting, seconds: float) -> None:
    """Stays until the others have heard: the store goes with this process, and they would wait for it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and store.add(f"{key}/heard", 0) != meeting.others:
        time.sleep(0.05)


def check_world(size: int, stage: str) -> None:
    """Compares the processes that a launcher has started with those that a stage's trainer is made for.

    Raises:
        UserError: In the first process: they differ, and several would train the same alone.
        SystemExit: In the others.
    """
    meeting = find_meeting()
    if meeting is None or meeting.others is None or meeting.others + 1 == size:
        return
    if not meeting.first:
        raise SystemExit(2)
    raise UserError(
        f"the launcher has started {meeting.others + 1} processes, and the trainer is made for {size}",
        f"stages.{stage}.trainer",
        "set devices (processes on each machine) and num_nodes (machines), e.g. --all_stages.trainer.devices=2",
    )


def started_again() -> bool:
    """Whether a launcher has started this command anew by itself: torchrun after a failure, SLURM after a requeue."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(os.environ.get(name) or 0) > 0 for name in counts)


def launch_id() -> str | None:
    """What stays the same when a launcher starts this command anew, and differs from its next use; None without one."""
    if "SLURM_JOB_ID" in os.environ:
        return f"slurm {os.environ['SLURM_JOB_ID']}"
    if not TorchElasticEnvironment.detect():
        return None
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    # torchrun's id is "none" unless somebody gives it one: then the agent, which outlives its workers.
    return f"torchrun {name}" if name != "none" else f"torchrun {socket.gethostname()} {os.getppid()}"


class RankWatch(Callback):
    """Ends a command of several processes when one of them has died, and says which one and how.

    A rank that waits for a dead one in a collective operation waits for half an hour, and Lightning's own watch
    kills without a word. Under torchrun and srun, these watch the ranks; here, only that their agent lives.

    Args:
        child: Whether another process has started this one to be a rank: it ends when that one is gone.
    """

    def __init__(self, child: bool) -> None:
        self.child = child
        self._started = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts to watch: the ranks exist from here on."""
        if self._started or _watching():
            return  # in an earlier stage
        self._started = True
        processes = getattr(trainer.strategy.launcher, "procs", [])
        for rank, process in enumerate(processes, start=trainer.global_rank + 1):
            self._start(_watch_child, process, rank, processes)
        if self.child:
            self._start(_watch_parent, os.getppid(), trainer.global_rank)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the word to a rank that has died: all that this one can tell is that a connection is closed."""
        if isinstance(exception, RuntimeError) and not self.child and _watching():
            time.sleep(_REASON)

    @staticmethod
    def _start(target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, name=_WATCH, daemon=True).start()


def _watching() -> bool:
    return any(thread.name == _WATCH for thread in threading.enumerate())


def _watch_child(process: "subprocess.Popen[bytes]", rank: int, processes: "list[subprocess.Popen[bytes]]") -> None:
    code = process.wait()
    if code in (0, 130):  # ended as it should, or by Ctrl-C, which all processes get
        return
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code} (see above)"
    print(f"error: rank {rank} {how}; ending the other ranks", file=sys.stderr, flush=True)
    for other in processes:
        other.kill()  # not terminate(): it may hang in a collective operation
    os._exit(code if code > 0 else 128 - code)


def _watch_parent(parent: int, rank: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    print(f"error: the process that had started rank {rank} is gone; ending rank {rank}", file=sys.stderr, flush=True)
    os._exit(1)
