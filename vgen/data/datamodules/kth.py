"""KTH actions (Schuldt et al. 2004)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import SVG, Preset
from vgen.data.splits import KTH_CLASSES, KTH_OFFICIAL, KTH_SVG
from vgen.data.transforms import Resize
from vgen.errors import UserError
from vgen.video.io import natural_key

_TABLE = "00sequences.txt"
_NAME = re.compile(r"person(\d\d)_([a-z]+)_d(\d)")
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


class KTH(VideoDataModule):
    """KTH: 25 persons, 6 actions, 160x120 grey, 25 frames/s, 599 files of some four performances each.

    Layout: `person<01-25>_<action>_d<1-4>_uncomp.avi`, in the root or in a folder for each action, and the page's
    `00sequences.txt`, which says where in a file a performance begins and ends: between these, walkers and runners are
    out of the picture. Every performance is one clip. Variants are the divisions of persons: `svg` (1 to 20 for
    training, the others for testing), `official` (8 for training, 8 for validation, 9 for testing). `channels: 1` gives
    the grey frames that SVG trains on. Arguments: `VideoDataModule`.
    """

    class_names = KTH_CLASSES
    own_resize: ClassVar[Resize] = "stretch"  # as SVG: 4:3 becomes 1:1
    variants: ClassVar[tuple[str, ...]] = ("svg", "official")
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "svg": replace(SVG, resize="stretch", filter="bicubic", variant="svg"),
    }
    expected: ClassVar[str] = "[<action>/]person<01-25>_<action>_d<1-4>_uncomp.avi and 00sequences.txt"
    how_to_get: ClassVar[str | None] = (
        "free download: https://www.csc.kth.se/cvap/actions/ (six zip files and the text)"
    )

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        if not (self.root / _TABLE).is_file():
            raise self._no_data(f"{_TABLE} (and {self.expected})")
        table = read_sequences(self.root / _TABLE)
        persons = KTH_SVG if self.variant == "svg" else KTH_OFFICIAL
        clips = []
        files = [f for pattern in ("*.avi", "*/*.avi") for f in self.root.glob(pattern)]
        for file in sorted(files, key=lambda f: natural_key(f.name)):
            name = file.stem.removesuffix("_uncomp")
            match = _NAME.fullmatch(name)
            if match is None or match[2] not in KTH_CLASSES or name not in table:
                continue
            split = next((s for s, numbers in persons.items() if int(match[1]) in numbers), None)
            if split is not None:
                path, label = file.relative_to(self.root).as_posix(), KTH_CLASSES.index(match[2])
                clips += [
                    ClipRecord(path, label, match[1], split, start=first - 1, frames=last - first + 1)
                    for first, last in table[name]
                ]
        return clips


def read_sequences(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Reads the table of performances: `person01_boxing_d1  frames  1-95, 96-185, ...`, from 1, both ends included.

    Lines of another form are passed over: the head of the file, and person13_handclapping_d3, which is *missing*.

    Returns:
        File name (without `_uncomp.avi`) to (first, last) of its performances.

    Raises:
        UserError: No line of this form, or a range that ends before it begins.
    """
    table: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        name, _, rest = line.strip().partition("frames")
        ranges = [(int(first), int(last)) for first, last in _RANGE.findall(rest)]
        if _NAME.fullmatch(name.strip()) and ranges:
            if any(last < first or first < 1 for first, last in ranges):
                raise UserError("a performance ends before it begins", f"{path}, line {number}")
            table[name.strip()] = ranges
    if not table:
        raise UserError("no line such as 'person01_boxing_d1 frames 1-95, 96-185'", str(path), KTH.how_to_get)
    return table
