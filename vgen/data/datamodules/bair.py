"""BAIR robot pushing (Ebert et al. 2017), from its TFRecord files."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.dataset import Reader
from vgen.data.presets import SVG, VIDEOGPT, Preset
from vgen.data.sampling import Indices
from vgen.data.splits import Split
from vgen.data.tfrecord import byte_features, read_record, record_offsets
from vgen.data.transforms import Pixels
from vgen.video.io import Examination, UnreadableVideo, VideoInfo, natural_key

Camera = Literal["aux1", "main"]
_SIDE = 64


class BairReader:
    """Reads clips of TFRecord files; frames of a file are counted through all of its records.

    Args:
        root: Folder that record paths are relative to.
        camera: Which of the two cameras.
    """

    def __init__(self, root: Path, camera: Camera) -> None:
        self.root, self.camera = root, camera

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """See `Reader`."""
        path = self.root / record.path
        places, length = _layout(path, path.stat().st_mtime_ns, self.camera)
        number, first = divmod(record.start, length)
        names = [_name(first + int(i), self.camera) for i in indices]
        features = _features(path, places[number], set(names))
        return np.stack([_picture(path, features, name) for name in names])

    def frames(self, path: Path, check: bool = False) -> int:
        """Frames of all records together; `check` reads every one, and its checksum.

        Raises:
            UnreadableVideo: A record is damaged, or holds another number of frames than the first.
        """
        places, length = _layout(path, path.stat().st_mtime_ns, self.camera)
        for number, place in enumerate(places if check else ()):
            features = _features(path, place, None, check=True)
            found = [name for name in (_name(t, self.camera) for t in range(length + 1)) if name in features]
            for name in found:
                _picture(path, features, name)
            if len(found) != length:
                raise UnreadableVideo(path, f"record {number} has {len(found)} frames instead of {length}")
        return len(places) * length


class BAIR(VideoDataModule):
    """BAIR robot pushing: some 43,000 training and 256 test clips of 30 frames, 64x64.

    Layout: what `bair_robot_pushing_dataset_v0.tar` unpacks to, `softmotion30_44k/{train,test}/traj_*.tfrecords` (or
    the content of `softmotion30_44k/`); read without TensorFlow. Variants are the cameras: `aux1` (the one that all
    papers show) and `main`. Arguments: `VideoDataModule`.
    """

    own_fps: ClassVar[float] = 10.0
    variants: ClassVar[tuple[str, ...]] = ("aux1", "main")
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        # SVG takes the first frames of a trajectory, VideoGPT a window from anywhere.
        "svg": replace(SVG, sampling="first", variant="aux1"),
        "videogpt": replace(VIDEOGPT, variant="aux1"),
    }
    expected: ClassVar[str] = "[softmotion30_44k/]{train,test}/traj_<first>_to_<last>.tfrecords"
    how_to_get: ClassVar[str | None] = (
        "free download: http://rail.eecs.berkeley.edu/datasets/bair_robot_pushing_dataset_v0.tar (30 GB)"
    )

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        inner = self.root / "softmotion30_44k"
        top = inner if inner.is_dir() else self.root
        clips = []
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            for path in sorted((top / split).glob("*.tfrecords"), key=lambda p: natural_key(p.name)):
                name = path.relative_to(self.root).as_posix()
                try:
                    places, length = _layout(path, path.stat().st_mtime_ns, self._camera)
                except UnreadableVideo:
                    places, length = [(0, 0)], 0  # the index will name what is wrong with it
                clips += [
                    ClipRecord(name, None, f"{split}/{path.stem}/{n}", split, start=n * length, frames=length)
                    for n in range(len(places))
                ]
        return clips

    def look(self, path: Path) -> VideoInfo:
        """See `VideoDataModule`."""
        if not path.is_file():
            raise UnreadableVideo(path, "no such file or folder")
        return VideoInfo(BairReader(self.root, self._camera).frames(path), _SIDE, _SIDE, self.own_fps)

    def examine(self, path: Path) -> Examination:
        """See `VideoDataModule`."""
        return Examination(BairReader(self.root, self._camera).frames(path, check=True))

    def reader(self) -> Reader:
        """See `VideoDataModule`."""
        return BairReader(self.root, self._camera)

    @property
    def _camera(self) -> Camera:
        return "main" if self.variant == "main" else "aux1"


@lru_cache(maxsize=1024)
def _layout(path: Path, stamp: int, camera: Camera) -> tuple[list[tuple[int, int]], int]:
    """Where the records of a file are, and how many frames the first one holds; `stamp` tells when to look again."""
    places = record_offsets(path)
    features = _features(path, places[0], None)
    length = 0
    while _name(length, camera) in features:
        length += 1
    if not length:
        raise UnreadableVideo(path, f"no feature {_name(0, camera)} in its first record; is this BAIR's file?")
    return places, length


def _features(path: Path, place: tuple[int, int], names: set[str] | None, check: bool = False) -> dict[str, bytes]:
    try:
        return byte_features(read_record(path, *place, check=check), names)
    except (ValueError, UnicodeDecodeError) as error:
        raise UnreadableVideo(path, f"the record at byte {place[0]} is damaged ({error})") from error


def _picture(path: Path, features: dict[str, bytes], name: str) -> Pixels:
    pixels = np.frombuffer(features.get(name, b""), np.uint8)
    if pixels.size != _SIDE * _SIDE * 3:
        raise UnreadableVideo(path, f"{name} has {pixels.size} bytes instead of {_SIDE} x {_SIDE} x 3")
    return pixels.reshape(_SIDE, _SIDE, 3)


def _name(time: int, camera: Camera) -> str:
    return f"{time}/image_{camera}/encoded"
