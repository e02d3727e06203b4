"""Frames of video files through torchcodec, where that is installed and loads.

torchcodec decodes a clip in about half the time of PyAV. It is used for what it is sure to read as PyAV does: anything
else (frame folders, GIF, damaged files, lying headers, rotated video) is left to `vgen.video.io`, which also says what
is wrong with a file.
"""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from vgen.errors import UserError
from vgen.video.io import VIDEO_SUFFIXES, Pixels

Decoder = Literal["auto", "torchcodec", "pyav"]
_OPEN = 32  # decoders that each process keeps: opening one scans the file
_HINT = (
    "pip install 'torchcodec==0.13.*' and FFmpeg's shared libraries (Debian: apt install ffmpeg); "
    "later releases on PyPI need CUDA"
)
_log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def why_no_torchcodec() -> str | None:
    """What keeps torchcodec from being used, in one line; None where nothing does."""
    try:
        import torchcodec.decoders  # noqa: F401
    except ImportError:
        return "torchcodec is not installed"
    except (OSError, RuntimeError) as error:  # its libraries do not fit FFmpeg's or torch's
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None


def use_torchcodec(decoder: Decoder) -> bool:
    """Whether torchcodec is to read video files.

    Raises:
        UserError: It was asked for by name, and cannot be used.
    """
    if decoder == "pyav":
        return False
    reason = why_no_torchcodec()
    if reason is None:
        return True
    if decoder == "torchcodec":
        raise UserError(f"torchcodec cannot be used: {reason}", "data.init_args.decoder", _HINT)
    return False


def decode_frames(path: Path, indices: Sequence[int], size: tuple[int, int] | None = None) -> Pixels | None:
    """Reads frames of a video file with torchcodec.

    Args:
        path: The file.
        indices: Frame numbers, any order, repetitions allowed.
        size: Height and width that the frames must have, where that is known.

    Returns:
        (T, H, W, 3) uint8 RGB; None for anything that `vgen.video.io.read_frames` has to deal with.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES or path.suffix.lower() == ".gif" or not path.is_file():
        return None
    try:
        decoder = _open(os.getpid(), path, path.stat().st_mtime_ns)
        if max(indices) >= len(decoder):
            return None
        frames = cast(Pixels, decoder.get_frames_at(indices=list(indices)).data.numpy())
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        _log.debug("torchcodec leaves %s to PyAV: %s", path, error)
        return None
    # A rotation note turns PyAV's frames; sizes differ then (and for anything else that the two see differently).
    return frames if size is None or frames.shape[1:3] == size else None


@lru_cache(maxsize=_OPEN)
def _open(process: int, path: Path, stamp: int) -> Any:
    """A decoder of this process: a forked worker must not share the file position of its parent's."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    # Exact: it looks at every packet once, and knows frames by their number. One thread: workers share the cores.
    return VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
