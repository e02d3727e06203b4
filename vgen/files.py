"""Writing that never costs the previous file, what can be opened at all, and hashes of files."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vgen.errors import UserError

# Errors of the disk and not of the program, in words.
_DISK = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the limit on file sizes",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk reports an error",
}


class WriteError(UserError):
    """A file that the disk did not take; what was there before is untouched."""

    def __init__(self, reason: str, path: str | Path) -> None:
        hint = "make room, then run the same command again (a training with --resume); the file of before is whole"
        super().__init__(f"cannot write: {reason}", str(path), hint)


def disk_error(error: BaseException | None) -> str | None:
    """What the disk has said, where it is the cause of an exception; else None."""
    while error is not None:
        text = str(error)
        # safetensors and torch's writer pass on the message alone.
        match = re.search(r"os error (\d+)", text)
        number = int(match[1]) if match else error.errno if isinstance(error, OSError) else None
        if number in _DISK:
            return _DISK[number]
        if "PytorchStreamWriter failed" in text:
            return "the disk is full or failing"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def naming_disk_errors(path: str | Path) -> Iterator[None]:
    """Turns an error of the disk into one line that says which file and what to do.

    Raises:
        WriteError: The disk is full, read-only or broken.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (reason := disk_error(error)) is None:
            raise
        raise WriteError(reason, path) from error


def _temporary_prefix(target: Path) -> str:
    """Start of the names of temporary files: whose they are can be told from it."""
    machine = zlib.crc32(platform.node().encode())
    return f".{target.name[:100]}.{machine:08x}-"


def _remove_leftovers(target: Path) -> None:
    """Deletes what a process that was killed left of an earlier attempt to write the same file or folder."""
    prefix = _temporary_prefix(target)
    for name in os.listdir(target.parent):
        owner, _, rest = name.removeprefix(prefix).partition(".")
        if not name.startswith(prefix) or not owner.isdecimal() or _is_alive(int(owner)):
            continue
        path = target.parent / name
        if rest.endswith(".old") and not target.exists():
            os.replace(path, target)  # killed between the two renames of `atomic_folder`
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and takes its name in one step.

    A crash, a kill or a full disk in between leaves the previous file as it was. What a kill leaves behind is removed
    when the same file is next written.

    Raises:
        WriteError: The disk is full, read-only or broken; the temporary file is removed.
        OSError: The folder cannot be written.
    """
    target = Path(path)
    with naming_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        prefix = f"{_temporary_prefix(target)}{os.getpid()}."
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp" + target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it is flushed to disk and takes the name.

    What was at `path` before is deleted only after that; a crash or a full disk leaves it as it was.

    Raises:
        WriteError: The disk is full, read-only or broken; the temporary folder is removed.
        OSError: The parent folder cannot be written.
    """
    target = Path(path).absolute()
    with naming_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        prefix = f"{_temporary_prefix(target)}{os.getpid()}."
        temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=target.parent))
        previous = temporary.with_suffix(".old")
        try:
            yield temporary
            for file in (p for p in temporary.rglob("*") if p.is_file()):
                with open(file, "rb+") as opened:
                    os.fsync(opened.fileno())
                os.chmod(file, 0o666 & ~_umask())  # some writers (safetensors) leave files that only their owner reads
            for folder in (temporary, *(p for p in temporary.rglob("*") if p.is_dir())):
                _sync_folder(folder)
            os.chmod(temporary, 0o777 & ~_umask())
            if target.exists():
                os.replace(target, previous)
            os.replace(temporary, target)
            _sync_folder(target.parent)
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


def why_unreadable(path: str | Path) -> str | None:
    """What keeps a path from being opened as a file, in words; None where nothing does.

    Named pipes and devices are no files: to open one may wait for ever.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return "a link to something that is not there" if os.path.islink(path) else "no such file or folder"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file (a pipe, socket or device)"
    return None if status.st_size else "the file is empty (0 bytes)"


def sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
