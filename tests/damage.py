"""Makes a folder of damaged clips out of small drawn sets in the layouts and codecs of the real ones.

Every case is a file or frame folder `<kind>/<name>`, with what a correct reader may make of it (`Truth`): frames,
height and width, or nothing.
"""

import os
import shutil
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vgen.data.fake import write_folder, write_mhad, write_mug
from vgen.video.io import probe

FRAMES = 12


@dataclass(frozen=True)
class Truth:
    """What is right to read out of a case; frames 0: nothing."""

    frames: int
    height: int = 0
    width: int = 0


NOTHING = Truth(0)


class Cases:
    """Writes cases below a folder and keeps what is right for each.

    Args:
        root: Folder to make.
        seed: Decides places and bits of the damage.
    """

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.rng = root, np.random.default_rng(seed)
        self.truth: dict[str, Truth] = {}
        originals = root.parent / f"{root.name}.originals"
        mhad = write_mhad(originals / "mhad", height=48, subjects=1, actions=(1,), min_frames=FRAMES, max_frames=FRAMES)
        plain = write_folder(originals / "folder", size=48, subjects=1, frames=FRAMES)
        mug = write_mug(
            originals / "mug", size=32, train_subjects=1, test_subjects=0, takes=1, min_frames=FRAMES, max_frames=FRAMES
        )
        self.sources = {"avi": next(mhad.rglob("*.avi")), "mp4": min(plain.rglob("*.mp4"))}
        self.pictures = min(folder for folder in mug.rglob("take*") if folder.is_dir())
        self.truths = {kind: self._probe(path) for kind, path in self.sources.items()}

    @staticmethod
    def _probe(path: Path) -> Truth:
        info = probe(path)
        return Truth(info.frames, info.height, info.width)

    def place(self, kind: str, name: str, truth: Truth) -> Path:
        """The path of a new case."""
        path = self.root / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert path.name not in os.listdir(path.parent), path
        self.truth[f"{kind}/{name}"] = truth
        return path

    def data(self, suffix: str) -> bytearray:
        """The bytes of an undamaged video."""
        return bytearray(self.sources[suffix].read_bytes())

    def whole(self, suffix: str) -> Truth:
        """What is right for it."""
        return self.truths[suffix]

    def folder(self, name: str, truth: Truth | None = None, kind: str = "pictures") -> Path:
        """A copy of the frame folder."""
        return Path(shutil.copytree(self.pictures, self.place(kind, name, truth or Truth(FRAMES, 32, 32))))


def make(root: Path, seed: int = 0) -> dict[str, Truth]:
    """Writes all cases below `root`; returns what is right for each, by relative path."""
    cases = Cases(root, seed)
    for write in (_bytes, _avi_headers, _mp4_headers, _rotation, _types, _no_files, _streams, _names, _sizes, _frames):
        write(cases)
    for number, suffix in enumerate(("avi", "mp4") * 2):
        path = cases.place("good", f"{number}.{suffix}", cases.whole(suffix))
        path.write_bytes(cases.data(suffix))
    cases.folder("pictures", kind="good")
    return cases.truth


def _bytes(cases: Cases) -> None:
    """Truncated, flipped, overwritten: at seeded places."""
    rng = cases.rng
    for suffix in ("avi", "mp4"):
        whole, size = cases.whole(suffix), len(cases.data(suffix))
        for number in range(12):
            cut = int(rng.integers(1, size))
            cases.place("truncated", f"{number}.{suffix}", whole).write_bytes(cases.data(suffix)[:cut])
        regions = {"start": (0, size // 8), "middle": (size // 8, size * 7 // 8), "end": (size * 7 // 8, size)}
        for region, (low, high) in regions.items():
            for number in range(14):
                data = cases.data(suffix)
                for _ in range(1 + number % 3):
                    data[int(rng.integers(low, high))] ^= 1 << int(rng.integers(8))
                cases.place("flipped", f"{region}{number}.{suffix}", whole).write_bytes(data)
        for number in range(6):
            data, start = cases.data(suffix), int(rng.integers(0, size - 256))
            data[start : start + 256] = bytes(256)
            cases.place("zeroed", f"{number}.{suffix}", whole).write_bytes(data)
        cases.place("zeroed", f"all.{suffix}", NOTHING).write_bytes(bytes(size))
        cases.place("random", f"all.{suffix}", NOTHING).write_bytes(rng.bytes(size))
        cases.place("empty", f"none.{suffix}", NOTHING).touch()


def _patched(cases: Cases, suffix: str, name: str, at: int, form: str, value: int, truth: Truth | None = None) -> None:
    data = cases.data(suffix)
    struct.pack_into(form, data, at, value)
    cases.place("lying", f"{name}.{suffix}", truth or cases.whole(suffix)).write_bytes(data)


def _avi_headers(cases: Cases) -> None:
    data = cases.data("avi")
    main, stream, picture = (data.index(tag) + 8 for tag in (b"avih", b"strh", b"strf"))
    fields = {
        "avih_rate": (main, (0, 1, 0xFFFFFFFF)),
        "avih_frames": (main + 16, (0, 5, 999999)),
        "avih_width": (main + 32, (0, 1, 60000)),
        "strh_scale": (stream + 20, (0, 0x7FFFFFFF)),
        "strh_rate": (stream + 24, (0, 0xFFFFFFFF)),
        "strh_frames": (stream + 32, (0, 5, 999999)),
        "strf_width": (picture + 4, (0, 63, 60000)),
        "strf_height": (picture + 8, (0, 60000)),
    }
    for name, (at, values) in fields.items():
        for value in values:
            _patched(cases, "avi", f"{name}_{value}", at, "<I", value)


def _mp4_headers(cases: Cases) -> None:
    data = cases.data("mp4")
    at = {tag: data.index(tag) + 4 for tag in (b"mvhd", b"tkhd", b"mdhd", b"stts", b"stsz", b"stco", b"avc1")}
    fields = {
        "mvhd_duration": (at[b"mvhd"] + 16, ">I", (0, 0xFFFFFFFF)),
        "mdhd_timescale": (at[b"mdhd"] + 12, ">I", (0, 1, 0x7FFFFFFF)),
        "mdhd_duration": (at[b"mdhd"] + 16, ">I", (0, 1, 0x7FFFFFFF)),
        "stts_delta": (at[b"stts"] + 12, ">I", (0, 0x7FFFFFFF)),
        "stsz_count": (at[b"stsz"] + 8, ">I", (0, 5, 0x0FFFFFFF)),
        "stco_offset": (at[b"stco"] + 8, ">I", (0, 0x7FFFFFFF)),
        "avc1_width": (at[b"avc1"] + 24, ">H", (0, 1, 60000)),
        "tkhd_width": (at[b"tkhd"] + 76, ">I", (0, 60000 << 16)),
    }
    for name, (place, form, values) in fields.items():
        for value in values:
            _patched(cases, "mp4", f"{name}_{value}", place, form, value)


def _rotation(cases: Cases) -> None:
    matrix = cases.data("mp4").index(b"tkhd") + 4 + 40
    whole = cases.whole("mp4")
    for degrees, (a, b, c, d) in {
        90: (0, 1, -1, 0),
        180: (-1, 0, 0, -1),
        270: (0, -1, 1, 0),
        45: (1, 1, -1, 1),
    }.items():
        data = cases.data("mp4")
        for place, value in zip((0, 4, 12, 16), (a, b, c, d), strict=True):
            struct.pack_into(">i", data, matrix + place, value << 16)
        turned = Truth(whole.frames, whole.width, whole.height) if degrees in (90, 270) else whole
        cases.place("rotated", f"{degrees}.mp4", turned).write_bytes(data)


def _types(cases: Cases) -> None:
    """Content of another kind than the name says."""
    text = b"this is no video\n" * 400
    picture = min(cases.pictures.iterdir()).read_bytes()
    good = cases.sources["mp4"].resolve()
    contents = {
        "text.mp4": text,
        "text.avi": text,
        "html.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
        "jpeg.mp4": picture,
        "jpeg.avi": picture,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {good}\n".encode(),
        "subtitle.mkv": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    }
    for name, content in contents.items():
        cases.place("type", name, NOTHING).write_bytes(content)
    Image.new("RGB", (8, 8)).save(cases.place("type", "png.webm", NOTHING), format="PNG")
    with zipfile.ZipFile(cases.place("type", "zip.mp4", NOTHING), "w") as archive:
        archive.writestr("a.txt", "text")
    # Only the content decides: these are whole.
    cases.place("type", "is_avi.mp4", cases.whole("avi")).write_bytes(cases.data("avi"))
    cases.place("type", "is_mp4.avi", cases.whole("mp4")).write_bytes(cases.data("mp4"))
    # Never read as a clip; a check must name it.
    cases.place("type", "video.jpg", NOTHING).write_bytes(cases.data("mp4"))


def _no_files(cases: Cases) -> None:
    """Names of clips that are no regular file."""
    cases.place("none", "hollow.mp4", NOTHING).mkdir()
    cases.place("none", "hollow", NOTHING).mkdir()
    notes = cases.place("none", "notes.mp4", NOTHING)
    notes.mkdir()
    (notes / "notes.txt").write_text("no picture")
    cases.place("none", "dangling.mp4", NOTHING).symlink_to("nowhere.mp4")
    cases.place("none", "loop.mp4", NOTHING).symlink_to("loop.mp4")
    cases.place("none", "device.mp4", NOTHING).symlink_to("/dev/zero")
    os.mkfifo(cases.place("none", "pipe.mp4", NOTHING))
    os.mkfifo(cases.place("none", "pipe.avi", NOTHING))
    path = cases.place("none", "socket.mp4", NOTHING)
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)
    (cases.root / "none" / "round").symlink_to(cases.root)  # every clip again, without end
    cases.place("none", "link.mp4", cases.whole("mp4")).symlink_to(cases.sources["mp4"].resolve())


def _clip(frames: int, height: int, width: int) -> np.ndarray:
    t, y, x = np.ogrid[:frames, :height, :width]
    grey = (127 + 60 * np.sin(x / 7 + t / 3) + 60 * np.cos(y / 5 - t / 4)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def _mux(path: Path, frames: np.ndarray, container: str, codec: str, pixels: str, shift: int = 0) -> None:
    """Encodes at any size, without padding; `shift` is added to all time stamps."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        pictures: Iterator[av.VideoFrame | None] = (av.VideoFrame.from_ndarray(f, format="rgb24") for f in frames)
        for picture in [*pictures, None]:
            for packet in stream.encode(picture):
                if shift:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                output.mux(packet)


def _streams(cases: Cases) -> None:
    """Files without pictures, with one, without or with strange time stamps."""
    for suffix, container in (("mp4", "mp4"), ("avi", "avi")):
        with av.open(str(cases.place("audio", f"only.{suffix}", NOTHING)), "w", format=container) as output:
            stream = output.add_stream("aac" if suffix == "mp4" else "mp2", rate=44100)
            samples = np.zeros((1, 1152 * 4), np.float32 if suffix == "mp4" else np.int16)
            frame = av.AudioFrame.from_ndarray(samples, "fltp" if suffix == "mp4" else "s16", layout="mono")
            frame.sample_rate = 44100
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    clip = _clip(FRAMES, 48, 64)
    whole = Truth(FRAMES, 48, 64)
    for suffix in ("avi", "mp4"):
        name = {"avi": ("avi", "mpeg4"), "mp4": ("mp4", "libx264")}[suffix]
        _mux(cases.place("one_frame", f"one.{suffix}", Truth(1, 48, 64)), clip[:1], *name, "yuv420p")
    _mux(cases.place("stamps", "none.m4v", whole), clip, "m4v", "mpeg4", "yuv420p")
    _mux(cases.place("stamps", "none.avi", whole), clip, "avi", "mpeg4", "yuv420p")
    _mux(cases.place("stamps", "negative.mkv", whole), clip, "matroska", "libx264", "yuv420p", shift=-5)
    # The writer turns what lies before zero into an edit list: five frames are hidden, or all of them.
    _mux(cases.place("hidden", "five.mp4", Truth(FRAMES - 5, 48, 64)), clip, "mp4", "libx264", "yuv420p", shift=-5)
    _mux(cases.place("hidden", "all.mp4", NOTHING), clip, "mp4", "libx264", "yuv420p", shift=-100000)
    _mux(cases.place("stamps", "late.mp4", whole), clip, "mp4", "libx264", "yuv420p", shift=10**9)


def _names(cases: Cases) -> None:
    names = [
        "a space.mp4", "new\nline.mp4", "tab\t.mp4", "ünï 漢字.mp4", "id#12#34.mp4", "12:30.mp4", "-dash.mp4",
        "%03d.mp4", "quote'\".mp4", "²³.mp4", "a" * 251 + ".mp4", os.fsdecode(b"bytes\xff.mp4"),
    ]  # fmt: skip
    for name in names:
        cases.place("names", name, cases.whole("mp4")).write_bytes(cases.data("mp4"))


def _sizes(cases: Cases) -> None:
    for height, width in ((1, 1), (2, 2), (63, 65), (17, 16), (2, 1024), (1024, 2), (1, 4000)):
        truth = Truth(4, height, width)
        clip = _clip(4, height, width)
        _mux(cases.place("sizes", f"{height}x{width}.mkv", truth), clip, "matroska", "ffv1", "bgr0")
        folder = cases.place("sizes", f"{height}x{width}", truth)
        folder.mkdir()
        for number, frame in enumerate(clip):
            Image.fromarray(frame).save(folder / f"{number}.png")


def _frames(cases: Cases) -> None:
    """Frame folders: one picture of each is changed."""
    rng = cases.rng

    def first(folder: Path, number: int = 5) -> Path:
        return sorted(folder.iterdir())[number]

    for number in range(10):
        path = first(cases.folder(f"truncated{number}"))
        data = path.read_bytes()
        path.write_bytes(data[: int(rng.integers(0, len(data) * 3 // 4))])
    for number in range(16):
        path = first(cases.folder(f"flipped{number}"))
        data = bytearray(path.read_bytes())
        data[int(rng.integers(0, len(data) // 4 if number < 8 else len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
    for number in range(8):
        folder = cases.folder(f"png{number}")
        for path in list(folder.iterdir()):
            Image.open(path).save(path.with_suffix(".png"))
            path.unlink()
        data = bytearray(first(folder).read_bytes())
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(8))
        first(folder).write_bytes(data)
    _one_changed(cases, first)
    _modes(cases)


def _one_changed(cases: Cases, first: Callable[..., Path]) -> None:
    first(cases.folder("empty")).write_bytes(b"")
    first(cases.folder("first_empty"), 0).write_bytes(b"")
    first(cases.folder("text")).write_text("no picture")
    first(cases.folder("a_video")).write_bytes(cases.data("mp4"))
    Image.new("RGB", (16, 32)).save(first(cases.folder("other_size")))
    for name, make_it in (
        ("pipe", os.mkfifo),
        ("dangling", lambda path: path.symlink_to("nowhere")),
        ("loop", lambda path: path.symlink_to(path.name)),
    ):
        path = first(cases.folder(name))
        path.unlink()
        make_it(path)
    # A header of 60000 x 60000 pixels, with the right checksum.
    folder = cases.folder("bomb")
    first(folder).unlink()
    Image.new("RGB", (32, 32)).save(folder / "img_0005.png")
    data = bytearray((folder / "img_0005.png").read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (folder / "img_0005.png").write_bytes(data)
    # Whole ones.
    folder = cases.folder("with_others")
    (folder / "Thumbs.db").write_bytes(b"\0")
    (folder / "._img_0000.jpg").write_bytes(b"\0")
    (folder / "folder.jpg").mkdir()
    folder = cases.folder("with_video")
    (folder / "same.avi").write_bytes(cases.data("avi"))
    folder = cases.folder("mixed_zeros")
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / (f"{number:03d}.jpg" if number % 2 else f"{number}.jpg"))
    cases.folder("named.mp4")
    cases.place("pictures", "hollow", NOTHING).mkdir()
    single = cases.place("pictures", "single", Truth(1, 32, 32))
    single.mkdir()
    Image.new("RGB", (32, 32), (9, 9, 9)).save(single / "0.png")


def _modes(cases: Cases) -> None:
    """Pictures of other kinds than 8-bit RGB; all of them are whole."""
    grey = Image.fromarray((np.arange(32 * 32).reshape(32, 32) % 256).astype(np.uint8))
    colour = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_90), grey))
    wide = Image.fromarray((np.arange(32 * 32, dtype=np.uint16) * 60).reshape(32, 32))
    images = {
        "grey.png": grey, "grey.jpg": grey, "two_levels.png": grey.convert("1"), "palette.png": colour.convert("P"),
        "alpha.png": colour.convert("RGBA"), "grey_alpha.png": grey.convert("LA"), "deep.png": wide,
        "print.jpg": colour.convert("CMYK"), "bitmap.bmp": colour, "webp.webp": colour,
    }  # fmt: skip
    for name, image in images.items():
        folder = cases.place("modes", name.replace(".", "_"), Truth(3, 32, 32))
        folder.mkdir()
        for number in range(3):
            image.save(folder / f"{number}{Path(name).suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = cases.place("modes", "turned_jpg", Truth(3, 32, 20))
    folder.mkdir()
    for number in range(3):
        colour.resize((32, 20)).save(folder / f"{number}.jpg", exif=exif)
