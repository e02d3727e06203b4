"""Looks through every file of a data set and names what is wrong with it."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vgen.data.clips import is_video
from vgen.errors import UserError
from vgen.video.io import UnreadableVideo, count_frames, list_frames, natural_key, probe

Problem = Literal["unreadable", "short", "lying header", "odd size", "duplicate"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one file."""

    path: str
    problem: Problem
    detail: str

    def __str__(self) -> str:
        return f"{self.problem:12s}  {self.path}: {self.detail}"


def find_videos(root: Path) -> list[str]:
    """All video files and frame folders below `root`, relative to it."""
    if not root.is_dir():
        raise UserError("no such folder", where=str(root))
    return list(_walk(root, root))


def check_videos(
    root: Path, paths: Sequence[str], min_frames: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Decodes every video completely.

    Args:
        root: Folder that `paths` are relative to.
        paths: Video files and frame folders.
        min_frames: Clips with fewer frames are named as short.
        progress: Called with (files done, files in all).

    Returns:
        What was found, in the order of `paths`: unreadable, short, lying header (it promises another number of frames
        than come out), odd size (many encoders and models need even sides), duplicate (same bytes under two names).
    """
    findings: list[Finding] = []
    seen: dict[str, str] = {}
    for number, path in enumerate(paths, start=1):
        findings += _check(root, path, min_frames, seen)
        if progress is not None:
            progress(number, len(paths))
    return findings


def _check(root: Path, path: str, min_frames: int, seen: dict[str, str]) -> Iterator[Finding]:
    try:
        info = probe(root / path)
        frames = count_frames(root / path)
    except UnreadableVideo as error:
        yield Finding(path, "unreadable", error.reason if error.path == str(root / path) else str(error))
        return
    claimed = info.header_frames or info.frames
    if claimed != frames:
        yield Finding(path, "lying header", f"promises {claimed} frames, {frames} can be decoded")
    if frames < min_frames:
        yield Finding(path, "short", f"{frames} frames, {min_frames} are needed")
    if info.height % 2 or info.width % 2:
        yield Finding(path, "odd size", f"{info.width}x{info.height}")
    digest = _digest(root / path)
    if digest in seen:
        yield Finding(path, "duplicate", f"same content as {seen[digest]}")
    seen.setdefault(digest, path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in list_frames(path) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _walk(folder: Path, root: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        children = sorted((e.name for e in entries if not e.name.startswith(".")), key=natural_key)
    for name in children:
        child = folder / name
        if is_video(child):
            yield child.relative_to(root).as_posix()
        elif child.is_dir():
            yield from _walk(child, root)
