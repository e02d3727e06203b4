"""Reading and writing of video files and frame folders.

A "video" is a file that FFmpeg (through PyAV) decodes, or a folder of numbered pictures. Frames are counted in decode
order and never by time stamp: AVI files often carry none, and readers that seek by time lose or double frames there.

What damage means: number and size of frames are what is decoded, whatever a header says; a rotation note is applied;
frames end where the first one cannot be decoded, because the places of those behind it are unknown; pictures in which
the decoder hid an error are frames, and `examine` counts them. Anything else is an `UnreadableVideo`.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vgen.errors import UserError
from vgen.files import atomic_path, why_unreadable
from vgen.video.image import MAX_PIXELS, read_picture

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
Pixels = NDArray[np.uint8]
_MAX_FPS = 1000.0  # a header that claims more says nothing
# FFmpeg guesses the format from the content: without this, a text file with a video's ending could be a playlist, and
# have it open other files and addresses.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegts,mpegvideo,m4v,gif,flv,asf,ogg"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
# What PyAV raises for damaged files, MemoryError for sizes that no machine has.
_DAMAGE = (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, MemoryError)


class UnreadableVideo(UserError):
    """A file or folder that cannot be read as video; `path` is the offender."""

    def __init__(self, path: str | os.PathLike[str], reason: str, hint: str | None = None) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"cannot read video: {reason}", where=str(path), hint=hint)

    def __reduce__(self) -> tuple[type, tuple[str, str, str | None]]:
        # Worker processes hand exceptions to the main process by pickling.
        return type(self), (self.path, self.reason, self.hint)


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds.

    Args:
        frames: Number of frames (pictures in the folder, or packets in the file; nothing but the first is decoded).
        height: Height in pixels.
        width: Width in pixels.
        fps: Frames per second; 0 where nothing says it (frame folders).
        header_frames: Number of frames that the file's header claims; 0 where it says nothing.
        hidden: Pictures that an edit list hides, as in trimmed phone videos: they are no frames.
    """

    frames: int
    height: int
    width: int
    fps: float
    header_frames: int = 0
    hidden: int = 0


@dataclass(frozen=True)
class Examination:
    """What comes out of a video when all of it is decoded.

    Args:
        frames: Number of frames.
        concealed: Frames in which the decoder hid an error.
        stopped: Why the decoder could not go on to the end; empty where it could.
    """

    frames: int
    concealed: int = 0
    stopped: str = ""


def natural_key(name: str | os.PathLike[str]) -> tuple[tuple[int, int | str], ...]:
    """Sorting key under which "img_9" comes before "img_10"; "9" and "09" have an order too."""
    parts = re.split(r"(\d+)", str(name))
    key = [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]
    return (*key, (-1, str(name)))


def is_picture(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is named as a picture, and is no folder."""
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".") and not entry.is_dir()


def list_frames(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a frame folder in natural order; other files (an AVI beside them, Thumbs.db) are passed over.

    Raises:
        UnreadableVideo: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if is_picture(entry)]
    except OSError as error:
        raise UnreadableVideo(folder, f"the folder cannot be read ({_short(error)})") from error
    return [Path(folder, name) for name in sorted(names, key=natural_key)]


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Looks up number, size and rate of frames without decoding more than the first frame.

    Raises:
        UnreadableVideo: Missing, empty, damaged or no video at all.
    """
    path = Path(path)
    if os.path.isdir(path):
        pictures = _frames_of(path)
        height, width = _read_picture(pictures[0]).shape[:2]
        return VideoInfo(len(pictures), height, width, 0.0)
    with _open(path) as container:
        stream = _video_stream(container)
        shape: tuple[int, ...] | None = None
        packets = hidden = 0
        for packet in container.demux(stream):
            hidden += packet.is_discard  # decoded for the sake of those behind it, and not shown
            packets += bool(packet.size) and not packet.is_discard
            if shape is None:
                frame = next(iter(packet.decode()), None)
                shape = None if frame is None else _RGB(path)(frame).shape
        if shape is None:
            raise UnreadableVideo(path, "no frame can be decoded", "is the file truncated?")
        fps = float(stream.average_rate or stream.base_rate or 0)
        fps = fps if 0 < fps <= _MAX_FPS else 0.0
        return VideoInfo(packets, shape[0], shape[1], fps, max(stream.frames - hidden, 0), hidden)


def iter_frames(path: str | os.PathLike[str]) -> Iterator[Pixels]:
    """Yields the frames (H, W, 3) uint8 of a video one by one: for videos that do not fit into memory.

    Raises:
        UnreadableVideo: Missing, empty or damaged file; a damaged tail ends the iteration.
    """
    path = Path(path)
    if os.path.isdir(path):
        yield from map(_read_picture, _frames_of(path))
    else:
        yield from map(_RGB(path), _decode(path))


def examine(path: str | os.PathLike[str]) -> Examination:
    """Decodes the whole video and says what really comes out of it (slow: for `vgen data check`).

    Raises:
        UnreadableVideo: Nothing can be decoded, a picture of a frame folder is damaged, or frames differ in size.
    """
    path = Path(path)
    sizes: set[tuple[int, int]] = set()
    count = concealed = 0
    stopped: list[str] = []
    if os.path.isdir(path):
        for picture in _frames_of(path):
            sizes.add(_read_picture(picture).shape[:2])
            count += 1
    else:
        for frame in _decode(path, stopped=stopped):
            sizes.add((frame.height, frame.width))
            count, concealed = count + 1, concealed + bool(frame.is_corrupt)
    if not count:
        raise UnreadableVideo(path, "no frame can be decoded", "is the file truncated?")
    _check_sizes(path, sizes)
    return Examination(count, concealed, *stopped)


def read_frames(path: str | os.PathLike[str], indices: Sequence[int] | None = None, missing: int = 1) -> Pixels:
    """Reads frames of a video file or of a frame folder.

    Args:
        path: Video file, or folder of pictures (whose name may end in .mp4, as in TaiChi-HD).
        indices: Frame numbers in decode order, any order, repetitions allowed; None reads all.
        missing: How many frames at the end may turn out not to exist, and are then replaced by the last one. AVI
            headers often count one frame too many.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        UnreadableVideo: Missing, empty or damaged file, pictures of several sizes, or too few frames.
    """
    path = Path(path)
    wanted = None if indices is None else [int(i) for i in indices]
    if wanted is not None and (not wanted or min(wanted) < 0):
        raise ValueError(f"frame indices must be a non-empty list of numbers >= 0, got {wanted}")
    needed = None if wanted is None else set(wanted)
    frames: dict[int, Pixels] = {}
    count = 0
    if os.path.isdir(path):
        pictures = _frames_of(path)
        count = len(pictures)
        if needed is not None and max(needed) >= count:
            needed.add(count - 1)
        frames = {i: _read_picture(p) for i, p in enumerate(pictures) if needed is None or i in needed}
    else:
        stop = None if needed is None else max(needed) + 1
        previous: av.VideoFrame | None = None
        rgb = _RGB(path)
        for frame in _decode(path, stop):
            if needed is None or count in needed:
                frames[count] = rgb(frame)
            previous, count = frame, count + 1
        if count and count - 1 not in frames and previous is not None:
            frames[count - 1] = rgb(previous)
    if not frames:
        raise UnreadableVideo(path, "no frame can be decoded", "is the file truncated?")
    order = list(range(count)) if wanted is None else wanted
    if max(order) >= count + missing:
        raise UnreadableVideo(path, f"frame {max(order)} was asked for, but only {count} can be decoded")
    picked = [frames[min(i, count - 1)] for i in order]
    _check_sizes(path, {frame.shape[:2] for frame in picked})
    return np.stack(picked)


def write_video(path: str | os.PathLike[str], video: Tensor, fps: float, crf: int = 18, upscale_to: int = 256) -> None:
    """Writes a clip as H.264 (yuv420p, plays in every browser).

    Args:
        path: Target; appears only when it is complete.
        video: (C, T, H, W) uint8, C = 1 or 3.
        fps: Frames per second.
        crf: H.264 quality, lower is better (18: visually lossless).
        upscale_to: Small clips are enlarged by the largest whole factor (nearest neighbour) that keeps the longer
            side within this many pixels. 0: never.
    """
    with video_writer(path, fps, crf, upscale_to) as append:
        append(video)


@contextmanager
def video_writer(
    path: str | os.PathLike[str], fps: float, crf: int = 18, upscale_to: int = 256
) -> Iterator[Callable[[Tensor], None]]:
    """Yields a function that appends a piece (C, t, H, W) uint8 to a video; see `write_video`.

    The bytes of the file do not depend on how it was cut into pieces. It takes its name when the block ends.
    """
    with encoder(path, fps, options={"crf": str(crf), "preset": "medium"}) as append:
        yield lambda piece: append(_enlarge(_to_frames(piece), upscale_to))


def write_gif(path: str | os.PathLike[str], video: Tensor, fps: float, upscale_to: int = 256) -> None:
    """Writes a clip (C, T, H, W) uint8 as an endless animated GIF (256 colours; see `write_video`)."""
    frames = [Image.fromarray(frame) for frame in _enlarge(_to_frames(video), upscale_to)]
    # GIF counts in hundredths of a second; below 20 ms viewers fall back to 100 ms.
    duration = max(20, round(100 / fps) * 10)
    with atomic_path(Path(path)) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)


def encode(
    path: str | os.PathLike[str],
    frames: Pixels,
    fps: float,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    codec_tag: str | None = None,
) -> None:
    """Encodes frames (T, H, W, 3) uint8; see `encoder`."""
    with encoder(path, fps, codec, options, codec_tag) as append:
        append(frames)


@contextmanager
def encoder(
    path: str | os.PathLike[str],
    fps: float,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    codec_tag: str | None = None,
) -> Iterator[Callable[[Pixels], None]]:
    """Yields a function that encodes frames (T, H, W, 3) uint8 with any of FFmpeg's encoders.

    Odd sizes repeat their last row or column. `codec_tag` is the four letters that the header shows, e.g. "XVID" with
    codec "mpeg4" for UCF-like AVI files.
    """
    if codec == "libx264":
        # x264's macroblock tree is not deterministic on pictures of a few dozen pixels: measured at 32 x 32, one clip
        # in ten came out with other bytes.
        options = {"x264-params": "mbtree=0", **(options or {})}
    with atomic_path(Path(path)) as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        # One thread: the same frames give the same bytes on every machine.
        stream.codec_context.thread_count = 1
        if codec_tag is not None:
            stream.codec_context.codec_tag = codec_tag
        empty = True

        def append(frames: Pixels) -> None:
            nonlocal empty
            height, width = frames.shape[1:3]
            if height % 2 or width % 2:
                frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if empty:
                stream.height, stream.width = frames.shape[1:3]
                empty = False
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))

        yield append
        container.mux(stream.encode(None))


@contextmanager
def _open(path: Path) -> Iterator["av.container.InputContainer"]:
    if (reason := why_unreadable(path)) is not None:
        hint = "copy or download it again" if "empty" in reason else None
        raise UnreadableVideo(path, reason, hint)
    with _named(path), av.open(f"file:{path}", options=_OPTIONS, metadata_errors="replace") as container:
        yield container


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns what the decoder raises into an error that names the file."""
    try:
        yield
    except _DAMAGE as error:
        raise UnreadableVideo(path, f"not a video, or damaged ({_short(error)})", "is the file truncated?") from error


def _video_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    if not container.streams.video:
        raise UnreadableVideo(container.name.removeprefix("file:"), "there is no video stream in it")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # PyAV's types do not know of it
        raise UnreadableVideo(container.name.removeprefix("file:"), "its codec is not known")
    # Frame threads cost 18-24 % more CPU per clip, and workers share the cores already.
    stream.thread_type = "NONE"
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _decode(path: Path, stop: int | None = None, stopped: list[str] | None = None) -> Iterator["av.VideoFrame"]:
    """Yields frames up to the first that cannot be decoded; why, is appended to `stopped`."""
    with _open(path) as container:
        count = 0
        try:
            for frame in container.decode(_video_stream(container)):
                yield frame
                count += 1
                if count == stop:
                    return
        except av.FFmpegError as error:
            # A damaged tail is no reason to lose what came before it; the caller sees how many frames there were.
            if count == 0:
                raise
            if stopped is not None:
                stopped.append(_short(error))


class _RGB:
    """Turns the frames of a video into arrays (H, W, 3) uint8, upright.

    PyAV's own `to_ndarray` starts a thread per core for every frame, which takes longer than the frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reformatter = VideoReformatter()

    def __call__(self, frame: "av.VideoFrame") -> Pixels:
        with _named(self.path):
            pixels = cast(Pixels, self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
        turns = round(getattr(frame, "rotation", 0) / 90) % 4  # phones store upright video lying, with a rotation note
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _frames_of(folder: Path) -> list[Path]:
    if not (pictures := list_frames(folder)):
        raise UnreadableVideo(folder, "the folder holds no pictures", f"expected {', '.join(IMAGE_SUFFIXES)}")
    return pictures


def _read_picture(path: Path) -> Pixels:
    try:
        return read_picture(path)
    except UserError as error:
        raise UnreadableVideo(path, f"damaged picture {path.name}: {error.what}") from error


def _check_sizes(path: Path, sizes: set[tuple[int, int]]) -> None:
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)[:4])
        raise UnreadableVideo(path, f"frames of several sizes: {shown}")


def _short(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _to_frames(video: Tensor) -> Pixels:
    if video.ndim != 4 or video.shape[0] not in (1, 3) or str(video.dtype) != "torch.uint8":
        raise ValueError(f"expected (C, T, H, W) uint8 with C 1 or 3, got {tuple(video.shape)} {video.dtype}")
    frames: Pixels = video.permute(1, 2, 3, 0).cpu().numpy()
    return np.repeat(frames, 3, axis=3) if frames.shape[3] == 1 else frames


def _enlarge(frames: Pixels, upscale_to: int) -> Pixels:
    factor = max(1, upscale_to // max(frames.shape[1:3]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else frames
