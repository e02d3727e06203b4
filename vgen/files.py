"""Writing that never costs the previous file, and hashes of files."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and takes its name in one step.

    A crash, a kill or a full disk in between leaves the previous file as it was.

    Raises:
        OSError: When the disk is full or the folder cannot be written; the temporary file is removed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp" + target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it is flushed to disk and takes the name.

    What was at `path` before is deleted only after that; a crash or a full disk leaves it as it was.

    Raises:
        OSError: When the disk is full or the parent folder cannot be written; the temporary folder is removed.
    """
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    previous = temporary.with_suffix(".old")
    try:
        yield temporary
        for file in (p for p in temporary.rglob("*") if p.is_file()):
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
            os.chmod(file, 0o666 & ~_umask())  # some writers (safetensors) leave files that only their owner can read
        os.chmod(temporary, 0o777 & ~_umask())
        if target.exists():
            os.replace(target, previous)
        os.replace(temporary, target)
    finally:
        if previous.exists() and not target.exists():
            os.replace(previous, target)
        for folder in (temporary, previous):
            shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: str | Path) -> None:
    """Deletes the temporary files and folders that kills in the middle of a write have left in a folder.

    Nobody else must be writing there.
    """
    for path in Path(folder).glob(".*.tmp*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_atomic(path: str | Path, write: Callable[[Path], None]) -> None:
    """Calls `write(temporary path)` and moves the result to `path` in one step."""
    with atomic_path(path) as temporary:
        write(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
