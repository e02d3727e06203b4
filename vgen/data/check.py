"""Looks through every file of a data set and names what is wrong with it."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vgen.data.clips import is_video
from vgen.errors import UserError, one_line
from vgen.video.image import read_picture
from vgen.video.io import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Examination,
    UnreadableVideo,
    VideoInfo,
    examine,
    list_frames,
    natural_key,
    probe,
)

Problem = Literal["unreadable", "damaged", "short", "lying header", "hidden", "odd size", "stray", "duplicate"]
_TALL = 8  # times as long as wide: more is no format of videos


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one file."""

    path: str
    problem: Problem
    detail: str

    def __str__(self) -> str:
        return f"{self.problem:12s}  {one_line(self.path)}: {one_line(self.detail)}"


def find_videos(root: Path) -> tuple[list[str], Counter[str]]:
    """Looks for video files and frame folders below `root`.

    Empty folders, folders that cannot be listed, and files that are named as pictures and are none, are among them, so
    that a check names them.

    Returns:
        Their paths relative to `root`, and how many other files there are of each suffix.
    """
    if not root.is_dir():
        raise UserError("no such folder", where=str(root))
    others: Counter[str] = Counter()
    return list(_walk(root, root, others, {_identity(root)})), others


def check_videos(
    root: Path,
    paths: Sequence[str],
    min_frames: int = 1,
    progress: Callable[[int, int], None] | None = None,
    look: Callable[[Path], VideoInfo] = probe,
    examine: Callable[[Path], Examination] = examine,
) -> list[Finding]:
    """Decodes every video completely.

    Args:
        root: Folder that `paths` are relative to.
        paths: Video files and frame folders.
        min_frames: Clips with fewer frames are named as short.
        progress: Called with (files done, files in all).
        look: Finds out length and size of a file without decoding it.
        examine: Decodes a file completely.

    Returns:
        What was found, in the order of `paths`: unreadable, damaged (the decoder hides errors or stops before the
        end), short, lying header (it promises another number of frames than come out), hidden (an edit list leaves
        frames out, on purpose or by damage), odd size (many encoders and models need even sides; or far from any
        format), stray (a video among the pictures of a frame folder), duplicate (same bytes under two names).
    """
    findings: list[Finding] = []
    seen: dict[str, str] = {}
    for number, path in enumerate(paths, start=1):
        findings += _check(root, path, min_frames, seen, look, examine)
        if progress is not None:
            progress(number, len(paths))
    return findings


def _check(
    root: Path,
    path: str,
    min_frames: int,
    seen: dict[str, str],
    look: Callable[[Path], VideoInfo],
    examine: Callable[[Path], Examination],
) -> Iterator[Finding]:
    if Path(path).suffix.lower() in IMAGE_SUFFIXES and not (root / path).is_dir():
        yield Finding(path, "unreadable", "named as a picture, but it is none")
        return
    try:
        info, found = look(root / path), examine(root / path)
        digest = _digest(root / path)
    except UnreadableVideo as error:
        inside = "" if error.path == str(root / path) else f" ({error.path})"
        yield Finding(path, "unreadable", error.reason + inside)
        return
    claimed = info.header_frames or info.frames
    if found.stopped:
        yield Finding(path, "damaged", f"decoding ends after frame {found.frames} of {claimed}: {found.stopped}")
    elif claimed != found.frames:
        yield Finding(path, "lying header", f"promises {claimed} frames, {found.frames} can be decoded")
    if found.concealed:
        yield Finding(path, "damaged", f"the decoder hides errors in {found.concealed} of {found.frames} frames")
    if info.hidden:
        yield Finding(path, "hidden", f"an edit list hides {info.hidden} pictures, {found.frames} are left")
    if found.frames < min_frames:
        yield Finding(path, "short", f"{found.frames} frames, {min_frames} are needed")
    if info.height % 2 or info.width % 2 or max(info.height, info.width) > _TALL * min(info.height, info.width):
        yield Finding(path, "odd size", f"{info.width}x{info.height}")
    if stray := _stray(root / path):
        yield Finding(path, "stray", stray)
    if digest in seen:
        yield Finding(path, "duplicate", f"same content as {seen[digest]}")
    seen.setdefault(digest, path)


def _stray(path: Path) -> str:
    """What lies among the pictures of a frame folder and is never read, though it may be meant as a clip."""
    if not path.is_dir():
        return ""
    with os.scandir(path) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(VIDEO_SUFFIXES) and not e.name.startswith(".")]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"a frame folder: {min(names, key=natural_key)}{more} beside the pictures is not read" if names else ""


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for name in list_frames(path) if path.is_dir() else [path]:
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _walk(folder: Path, root: Path, others: Counter[str], above: set[tuple[int, int]]) -> Iterator[str]:
    """Yields clips; `above` are the folders on the way here: a link to one of them would lead round for ever."""
    try:
        with os.scandir(folder) as entries:
            children = sorted((e.name for e in entries if not e.name.startswith(".")), key=natural_key)
    except OSError:
        children = []
    if not children and folder != root:
        yield folder.relative_to(root).as_posix()
    for name in children:
        child = folder / name
        if is_video(child):
            yield child.relative_to(root).as_posix()
        elif not child.is_dir():
            if child.suffix.lower() in IMAGE_SUFFIXES and not _is_picture(child):
                yield child.relative_to(root).as_posix()
            else:
                others[child.suffix.lower() or "no suffix"] += 1
        elif (identity := _identity(child)) not in above:
            yield from _walk(child, root, others, above | {identity})


def _is_picture(path: Path) -> bool:
    try:
        read_picture(path)
    except UserError:
        return False
    return True


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
