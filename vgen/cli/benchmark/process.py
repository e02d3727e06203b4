"""Work in a process of its own.

Peak memory is counted by process; and whatever ends this one (out of memory, a crash in a library) ends one recipe and
not the benchmark.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from vgen.callbacks.preemption import SIGNALS
from vgen.cli.main import mistake_behind


def apart(work: Callable[..., None], *arguments: Any) -> str | None:
    """Runs a function in a process of its own and waits for it.

    SIGTERM and SIGUSR1 are passed on; a training then saves itself and ends.

    Args:
        work: A function of a module.
        arguments: Its arguments; they are pickled.

    Returns:
        None, or what went wrong.

    Raises:
        SystemExit: This process was told to end.
        KeyboardInterrupt: Ctrl-C.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sending, work, arguments))
    process.start()
    sending.close()
    with _passing_on(process) as received:
        try:
            process.join()
        except KeyboardInterrupt:  # the process has got it too, from the terminal
            process.join()
            raise
    if received:
        raise SystemExit(128 + received[0])
    try:
        return str(receiving.recv()) if receiving.poll() else _ended(process.exitcode)
    except EOFError:
        return _ended(process.exitcode)


@contextmanager
def _passing_on(process: Any) -> Iterator[list[int]]:
    """Passes signals on to a process; yields the list of those that came."""
    received: list[int] = []

    def receive(signum: int, frame: Any) -> None:
        received.append(signum)
        os.kill(process.pid, signum)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {signum: signal.signal(signum, receive) for signum in SIGNALS}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _ended(code: int | None) -> str | None:
    if code == 0:
        return None
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}; the same command goes on"
    return f"ended with exit code {code}; the same command goes on"


def _run(sending: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        work(*arguments)
    except Exception as error:
        if (mistake := mistake_behind(error)) is not None:
            sending.send(f"{mistake.what}" + (f" ({mistake.where})" if mistake.where else ""))
        else:
            traceback.print_exc()
            sending.send(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
