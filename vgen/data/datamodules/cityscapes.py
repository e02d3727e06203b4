"""Cityscapes video (Cordts et al. 2016), with per-frame label maps in vid2vid's layout."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vgen.data.clips import ClipIndex, ClipRecord, is_video
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.dataset import ClipDataset, FileReader, Reader
from vgen.data.presets import Preset
from vgen.data.sampling import Indices
from vgen.data.splits import Split
from vgen.data.transforms import Pixels
from vgen.errors import UserError
from vgen.video.io import UnreadableVideo, list_frames, natural_key

_FRAME = re.compile(r"(?P<city>.+)_(?P<sequence>\d{6})_(?P<frame>\d{6})_leftImg8bit\.png")
_SNIPPET = 30  # frames
_MAPS = {"label_map": ("A", np.uint8), "instance_map": ("inst", np.int32)}


@dataclass(frozen=True)
class MapReader:
    """Reads frames, and the maps that belong to them.

    Args:
        files: Reads the frames, from `<set>_B/<sequence>`.
        keys: Which maps there are.
    """

    files: FileReader
    keys: tuple[str, ...]

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """See `Reader`."""
        return self.files.read(record, indices)

    def read_map(self, key: str, record: ClipRecord, indices: Indices) -> NDArray[Any]:
        """Numbers (T, H, W) of a map, as they are stored."""
        folder = map_folder(self.files.root / record.path, key)
        pictures = list_frames(folder)
        return np.stack([_read_numbers(pictures[int(i)]) for i in indices]).astype(_MAPS[key][1])


class MappedClips(ClipDataset):
    """Clips with maps `label_map` and `instance_map`, cut, resized (nearest) and mirrored as their frames."""

    def _item(self, record: ClipRecord, seed: tuple[int, int, int], window: int = 0) -> dict[str, Any]:
        item = super()._item(record, seed, window)
        if isinstance(self.reader, MapReader):
            geometry = replace(self.transform, filter="nearest", jpeg=None)
            for key in self.reader.keys:
                numbers = self.reader.read_map(key, record, item["frame_index"].numpy())
                placed = geometry(numbers[..., None], seed)
                item[key] = torch.from_numpy(np.ascontiguousarray(placed.transpose(3, 0, 1, 2)))
        return item


class Cityscapes(VideoDataModule):
    """Cityscapes video: 2,975 training, 500 validation and 1,525 test snippets of 30 frames, 2048x1024, 17 frames/s.

    Variants are layouts. `vid2vid`: `{train,test}_B/<sequence>/*.png` are frames, `{train,test}_A/<sequence>/*.png`
    their semantic label maps (numbers of classes) and, where wanted, `{train,test}_inst/<sequence>/*.png` instance
    maps, all of equal number; a segmentation network made the maps, for only one frame in thirty is annotated.
    `sequence`: the official archive's `leftImg8bit_sequence/{train,val,test}/<city>/<name>_leftImg8bit.png`,
    where <name> is <city>_<sequence>_<frame>; without maps.

    Batches of `vid2vid` have `label_map` (B, 1, T, H, W) uint8 and, where it is there, `instance_map` int32. A packed
    set holds frames alone. Arguments: `VideoDataModule`; `size: [512, 1024]` is vid2vid's first scale.
    """

    own_fps: ClassVar[float] = 17.0
    variants: ClassVar[tuple[str, ...]] = ("vid2vid", "sequence")
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "mcvd": Preset(
            "MCVD (Voleti et al. 2022): centre crop",
            resize="crop_first",
            filter="bilinear",
            sampling="window",
            short_clips="drop",
            variant="sequence",
        ),
        "vid2vid": Preset(
            "vid2vid (Wang et al. 2018): scaleWidth",
            resize="stretch",
            filter="bicubic",
            sampling="window",
            short_clips="drop",
            augmentation="flip",
            variant="vid2vid",
        ),
    }
    expected: ClassVar[str] = (
        "{train,test}_{A,B}/<sequence>/*.png (variant vid2vid) or leftImg8bit_sequence/{train,val,test}/<city>/*.png "
        "(variant sequence)"
    )
    how_to_get: ClassVar[str | None] = (
        "registration: https://www.cityscapes-dataset.com, leftImg8bit_sequence_trainvaltest.zip (324 GB)"
    )
    dataset_class: ClassVar[type[ClipDataset]] = MappedClips

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        return list(self._pairs() if self.variant == "vid2vid" else self._snippets())

    def look_up(self) -> ClipIndex:
        """See `VideoDataModule`."""
        index = super().look_up()
        if self.variant != "vid2vid":
            return index
        bad = {}
        for record in index.records:
            for key in self._keys:
                folder = map_folder(self.root / record.path, key)
                count = len(list_frames(folder)) if folder.is_dir() else 0
                if count != record.frames:
                    bad[record.path] = f"{record.frames} frames, but {count} maps in {folder.parent.name}/{folder.name}"
        kept = tuple(r for r in index.records if r.path not in bad)
        if not kept:
            path, reason = next(iter(bad.items()))
            raise UserError(f"no sequence has a map for each frame: {reason}", str(self.root / path), self.how_to_get)
        return replace(index, records=kept, bad=(*index.bad, *bad.items()))

    def reader(self) -> Reader:
        """See `VideoDataModule`."""
        files = FileReader(self.root, self.decoder)
        return MapReader(files, self._keys) if self.variant == "vid2vid" else files

    @property
    def _keys(self) -> tuple[str, ...]:
        return tuple(k for k, (name, _) in _MAPS.items() if k == "label_map" or (self.root / f"train_{name}").is_dir())

    def _names_and_keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        mapped = self._pack is None and self.variant == "vid2vid"
        return (), self._keys if mapped else ()

    def _make_dataset(self, split: Split) -> ClipDataset:
        colours = self.augmentation not in ("none", "flip", "crop_flip")
        if colours and self.variant == "vid2vid":
            key = "data.init_args.augmentation"
            raise UserError(f"augmentation {self.augmentation} would change label maps", key, "use flip or none")
        return super()._make_dataset(split)

    def _pairs(self) -> Iterator[ClipRecord]:
        splits: tuple[Split, ...] = ("train", "val", "test")
        for split in splits:
            folder = self.root / f"{split}_B"
            for path in sorted(folder.iterdir() if folder.is_dir() else (), key=lambda p: natural_key(p.name)):
                if path.is_dir() and is_video(path):
                    yield ClipRecord(path.relative_to(self.root).as_posix(), None, path.name, split)

    def _snippets(self) -> Iterator[ClipRecord]:
        inner = self.root / "leftImg8bit_sequence"
        top = inner if inner.is_dir() else self.root
        splits: tuple[Split, ...] = ("train", "val", "test")
        for split in splits:
            cities = [c for c in (top / split).iterdir() if c.is_dir()] if (top / split).is_dir() else []
            for city in sorted(cities):
                names = [path.name for path in list_frames(city)]
                for start, count in snippets(names):
                    path = city.relative_to(self.root).as_posix()
                    yield ClipRecord(path, None, city.name, split, start=start, frames=count)


def snippets(names: Sequence[str]) -> list[tuple[int, int]]:
    """Start and length of the snippets in a city's folder.

    A snippet ends with its sequence, where frame numbers jump, or after 30 frames: in some cities all snippets are of
    one sequence.

    Args:
        names: File names in natural order.
    """
    found: list[tuple[int, int]] = []
    previous: tuple[str, int] | None = None
    for place, name in enumerate(names):
        match = _FRAME.fullmatch(name)
        here = (match["sequence"], int(match["frame"])) if match else None
        follows = here is not None and previous is not None and here == (previous[0], previous[1] + 1)
        if follows and found[-1][1] < _SNIPPET:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        elif here is not None:
            found.append((place, 1))
        previous = here
    return found


def map_folder(frames: Path, key: str) -> Path:
    """`<set>_A/<sequence>` or `<set>_inst/<sequence>` for `<set>_B/<sequence>`."""
    split = frames.parent.name.removesuffix("_B")
    return frames.parent.parent / f"{split}_{_MAPS[key][0]}" / frames.name


def _read_numbers(path: Path) -> NDArray[Any]:
    try:
        with Image.open(path) as image:
            numbers = np.asarray(image)  # of a palette picture, the numbers of its colours
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableVideo(path, f"damaged map {os.path.basename(path)}") from error
    if numbers.ndim != 2:
        raise UnreadableVideo(path, "a map has one number for each pixel, but this is a colour picture")
    return numbers
