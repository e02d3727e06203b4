"""FaceForensics (Rössler et al. 2018, the first version), cut to faces as StyleGAN-V and TGANv2 do it."""

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vgen.data.clips import ClipIndex, ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.dataset import FileReader, Reader
from vgen.data.presets import LATTE, STYLEGAN_V, TGAN_V2, Preset
from vgen.data.sampling import Indices
from vgen.data.splits import Split
from vgen.data.transforms import Filter, Pixels, resize
from vgen.files import WriteError, atomic_path
from vgen.video.io import UnreadableVideo, iter_frames, natural_key

Box = tuple[int, int, int, int]  # left, top, right, bottom
_BOXES = ".vgen_faces.json"
_DARK = 5.0  # mean darkness in grey levels that tells columns and rows of the face in a mask
_TOP = "FaceForensics_compressed"
_log = logging.getLogger(__name__)


def face_box(mask: Pixels) -> Box | None:
    """The square around the face of one mask frame (H, W, 3), dark where the face is; None where there is none.

    The shorter side grows by the same amount at both ends, and may leave the picture.
    """
    dark = 255.0 - mask.mean(-1)
    columns, rows = (np.flatnonzero(dark.mean(axis) > _DARK) for axis in (0, 1))
    if not len(columns) or not len(rows):
        return None
    left, right, top, bottom = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    more = (right - left) - (bottom - top)
    if more > 0:
        top, bottom = top - more // 2, bottom + more - more // 2
    else:
        left, right = left + more // 2, right - (more - more // 2)
    return left, top, right, bottom


@dataclass(frozen=True)
class FaceReader:
    """Reads videos and cuts every frame to its face.

    Args:
        files: Reads whole frames.
        boxes: For each video (relative path) the number and the box of every frame that shows a whole face.
        size: Height and width to which faces are resized: they differ in size from frame to frame.
        filter: With which filter.
    """

    files: FileReader
    boxes: Mapping[str, list[tuple[int, Box]]]
    size: tuple[int, int]
    filter: Filter

    def read(self, record: ClipRecord, indices: Indices) -> Pixels:
        """See `Reader`."""
        chosen = [self.boxes[record.path][int(i)] for i in indices]
        frames = self.files.read(record, np.array([number for number, _ in chosen]))
        faces = [f[top:bottom, left:right] for f, (_, (left, top, right, bottom)) in zip(frames, chosen, strict=True)]
        return np.concatenate([resize(face[None], self.size, "stretch", self.filter) for face in faces])


class FaceForensics(VideoDataModule):
    """FaceForensics: 1,004 videos of speaking people (704 training, 150 validation, 150 test), cut to their faces.

    Layout: `FaceForensics_compressed/{train,val,test}/{original,mask,altered}/<video>.avi` (or the content of that
    folder); the mask videos tell where the face is. They are decoded once, and what they say is kept in
    `.vgen_faces.json`. Variants: `unstable` cuts every frame by itself, so that pictures shake: the published numbers
    of StyleGAN-V are about these. `stable` cuts all frames of a video to the box around all of its faces. Both leave
    out frames whose box leaves the picture. `whole` cuts nothing. Arguments: `VideoDataModule`.
    """

    own_fps: ClassVar[float] = 30.0
    variants: ClassVar[tuple[str, ...]] = ("unstable", "stable", "whole")
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "latte": LATTE,
        "stylegan_v": STYLEGAN_V.on("unstable"),
        "tganv2": replace(TGAN_V2, resize="stretch", augmentation="none", variant="unstable"),
    }
    expected: ClassVar[str] = "[FaceForensics_compressed/]{train,val,test}/{original,mask}/<video>.avi"
    how_to_get: ClassVar[str | None] = (
        "form to be filled in: https://github.com/ondyari/FaceForensics (ask for the first version, compressed)"
    )

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        top = self.root / _TOP if (self.root / _TOP).is_dir() else self.root
        clips = []
        splits: tuple[Split, ...] = ("train", "val", "test")
        for split in splits:
            folder = top / split / "original"
            for path in sorted(folder.glob("*.avi"), key=lambda p: natural_key(p.name)):
                # The mask has the same name; somebody's own pictures without one can only be read whole.
                if self.variant == "whole" or self._mask(path).is_file():
                    clips.append(ClipRecord(path.relative_to(self.root).as_posix(), None, path.stem, split))
        return clips

    def look_up(self) -> ClipIndex:
        """See `VideoDataModule`."""
        index = super().look_up()
        if self.variant == "whole":
            return index
        boxes = self._boxes(index.records)
        # A frame without a face, or with half of one, is no frame of this set.
        kept = tuple(replace(r, frames=len(boxes[r.path])) for r in index.records if boxes[r.path])
        lost = tuple((r.path, "no frame shows a whole face") for r in index.records if not boxes[r.path])
        return replace(index, records=kept, bad=(*index.bad, *lost))

    def reader(self) -> Reader:
        """See `VideoDataModule`."""
        files = FileReader(self.root, self.decoder)
        if self.variant == "whole":
            return files
        return FaceReader(files, self._boxes(self.index.records), (self.height, self.width), self.filter)

    def _mask(self, path: Path) -> Path:
        return path.parent.parent / "mask" / path.name

    def _boxes(self, records: tuple[ClipRecord, ...]) -> dict[str, list[tuple[int, Box]]]:
        """Boxes of all videos under the chosen variant, from the stored ones where these are still right."""
        stored = self._stored()
        known = dict(stored)
        for record in records:
            mask = self._mask(self.root / record.path)
            status = mask.stat()
            signature = [status.st_size, status.st_mtime_ns]
            if known.get(record.path, {}).get("signature") != signature:
                known[record.path] = {"signature": signature, "boxes": _boxes_of(mask)}
        if known != stored:
            with contextlib.suppress(OSError, WriteError), atomic_path(self.root / _BOXES) as temporary:
                temporary.write_text(json.dumps(known, separators=(",", ":")))
        return {r.path: self._choose_boxes(known[r.path]["boxes"], r) for r in records}

    def _stored(self) -> dict[str, dict[str, Any]]:
        try:
            return dict(json.loads((self.root / _BOXES).read_text()))
        except (OSError, ValueError):
            return {}

    def _choose_boxes(self, boxes: list[Box | None], record: ClipRecord) -> list[tuple[int, Box]]:
        inside = [
            (number, box)
            for number, box in enumerate(boxes)
            if box is not None and min(box) >= 0 and box[2] <= record.width and box[3] <= record.height
        ]
        if self.variant == "stable" and inside:
            box = _around([box for _, box in inside], record)
            return [(number, box) for number, _ in inside]
        return [(number, (box[0], box[1], box[2], box[3])) for number, box in inside]  # JSON knows lists alone


def _boxes_of(mask: Path) -> list[Box | None]:
    try:
        return [face_box(frame) for frame in iter_frames(mask)]
    except UnreadableVideo as error:
        _log.warning("left out a video whose mask cannot be read: %s: %s", mask, error.reason)
        return []


def _around(boxes: list[Box], record: ClipRecord) -> Box:
    """The square around all boxes, moved (and, where there is no room, shrunk) into the picture."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    left, top, right, bottom = min(lefts), min(tops), max(rights), max(bottoms)
    side = min(max(right - left, bottom - top), record.width, record.height)
    x = min(max(0, (left + right - side) // 2), record.width - side)
    y = min(max(0, (top + bottom - side) // 2), record.height - side)
    return x, y, x + side, y + side
