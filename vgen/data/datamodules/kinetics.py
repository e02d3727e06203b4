"""Kinetics-600 (Carreira et al. 2018) as the CVDF mirror hands it out."""

import csv
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, get_args

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import DIGAN, VIDEOGPT, Preset
from vgen.data.splits import KINETICS_FOOD, Split
from vgen.errors import UserError
from vgen.video.io import VIDEO_SUFFIXES

_NAME = re.compile(r"(?P<id>.{11})_(?P<start>\d{6})_(?P<end>\d{6})")
_log = logging.getLogger(__name__)


class Kinetics600(VideoDataModule):
    """Kinetics-600: 600 actions, clips of ten seconds, of any size and frame rate.

    Layout: `{train,val,test}/[<class>/]<id>_<start>_<end>.mp4` and `annotations/{train,val,test}.csv` (the mirror's
    own files of that name end in `.txt`), or the tables in the root. Listed videos that are not there are counted and
    passed over: some thousands are lost. The test table has no labels on some mirrors; such clips are left out. The
    subject is the video's id. Variants: `all`, and `food`, the classes whose names hold one of 17 words (DIGAN).
    Arguments: `VideoDataModule`.
    """

    variants: ClassVar[tuple[str, ...]] = ("all", "food")
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "digan": replace(DIGAN, filter="lanczos", variant="food"),
        "dvdgan": Preset(
            "DVD-GAN (Clark et al. 2019): centre crop, every second frame",
            resize="crop",
            filter="bilinear",
            sampling="window",
            stride=2,
            short_clips="drop",
        ),
        "videogpt": VIDEOGPT,
    }
    expected: ClassVar[str] = "{train,val,test}/<id>_<start>_<end>.mp4 and annotations/{train,val,test}.csv or .txt"
    how_to_get: ClassVar[str | None] = "k600_downloader.sh of https://github.com/cvdfoundation/kinetics-dataset"

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """In alphabetical order, as in all tables of the set."""
        names = {label for rows in self._tables.values() for label, _ in rows if label}
        return tuple(sorted(name for name in names if self.variant == "all" or _is_food(name)))

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        numbers = {name: label for label, name in enumerate(self.class_names)}
        clips, lost = [], 0
        for split, rows in self._tables.items():
            there = {path.stem: path for path in self._videos(split)}
            for label, stem in rows:
                if label not in numbers:
                    continue
                if stem in there:
                    path = there[stem].relative_to(self.root).as_posix()
                    clips.append(ClipRecord(path, numbers[label], stem[:11], split))
                else:
                    lost += 1
        if lost:
            _log.info("%d of %d listed Kinetics videos are not there", lost, lost + len(clips))
        return clips

    def _videos(self, split: Split) -> Iterator[Path]:
        for pattern in ("*", "*/*"):
            for path in (self.root / split).glob(pattern):
                if path.suffix.lower() in VIDEO_SUFFIXES and _NAME.fullmatch(path.stem):
                    yield path

    @cached_property
    def _tables(self) -> dict[Split, list[tuple[str, str]]]:
        """For each set, label and file name of the listed clips."""
        found: dict[Split, list[tuple[str, str]]] = {}
        for split in get_args(Split):
            places = [
                f / f"{split}.{ending}" for f in (self.root / "annotations", self.root) for ending in ("csv", "txt")
            ]
            path = next((place for place in places if place.is_file()), None)
            if path is not None:
                found[split] = _read_table(path)
        if not found:
            raise self._no_data()
        return found


def _read_table(path: Path) -> list[tuple[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        needed = {"youtube_id", "time_start", "time_end"}
        if not needed <= set(reader.fieldnames or ()):
            raise UserError(f"the table lacks columns {sorted(needed - set(reader.fieldnames or ()))}", str(path))
        rows = []
        for number, row in enumerate(reader, start=2):
            try:
                start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
            except (TypeError, ValueError) as error:
                raise UserError("time_start and time_end must be numbers", f"{path}, line {number}") from error
            rows.append(((row.get("label") or "").strip(), f"{row['youtube_id']}_{start:06d}_{end:06d}"))
    return rows


def _is_food(name: str) -> bool:
    return any(word in name.lower() for word in KINETICS_FOOD)
