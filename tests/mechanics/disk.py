"""Disks that take no more: a real one that is full, and a limit on the size of files; and work in a process apart."""

import io
import multiprocessing
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback


class FullDisk:
    """A small file system in memory, which can be filled up to a few bytes.

    Args:
        root: Where it is mounted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def shut(self, left: int) -> None:
        """Leaves `left` bytes (whole pages)."""
        with open(self.root / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(os.statvfs(self.root).f_bavail * 4096 - left, 4096))

    def open(self) -> None:
        """Gives the space back."""
        (self.root / "filler").unlink(missing_ok=True)


class SizeLimit:
    """The limit of a process on the size of files (`ulimit -f`); binds only the process that sets it.

    Args:
        root: Where files are written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def shut(self, left: int) -> None:
        """No file may be longer than `left` bytes."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def open(self) -> None:
        """The limit ends with the process that set it."""


Disk = FullDisk | SizeLimit


@contextmanager
def mounted(folder: Path, size: str = "24m") -> Iterator[FullDisk | None]:
    """A file system of that size; None where this process may mount none."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield FullDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def apart(work: Callable[[], Any]) -> tuple[Any, str]:
    """Runs `work` in a forked process; returns its result, and what it has written to standard error."""
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def child() -> None:
        said = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            result = work()
        sender.send((result, said.getvalue()))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sender.close()
    try:
        result: tuple[Any, str] = receiver.recv()
    finally:
        process.join()
    return result


class ShutsTheDisk(Callback):
    """Shuts a disk when a step begins; the disk and the step are set in the class, before a recipe builds it."""

    disk: Disk | None = None
    step, left = 0, 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.disk is not None and trainer.global_step + 1 == self.step:
            self.disk.shut(self.left)
