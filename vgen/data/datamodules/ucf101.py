"""UCF-101 (Soomro et al. 2012) with its official lists."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import DIGAN_UCF, LATTE, PVDM, PVDM_LONG, STYLEGAN_V, TGAN, TGAN_V2, VIDEOGPT, Preset
from vgen.data.splits import Split
from vgen.errors import UserError
from vgen.video.io import natural_key

_LISTS = "ucfTrainTestlist"
_GROUP = re.compile(r"_(g\d+)_c\d+$")


class UCF101(VideoDataModule):
    """UCF-101: 101 actions, 13,320 clips cut from 2,525 source videos ("groups"), 320x240, 25 frames/s.

    Layout: what `UCF101.rar` unpacks to, `UCF-101/<Class>/v_<Class>_g<01..25>_c<01..07>.avi` (or the content of
    `UCF-101/`), and `ucfTrainTestlist/`, in the root or among the classes. Variants are the three official splits,
    under which the clips of one group are in one set; the class is that of the folder, because the files of
    HandstandPushups spell it another way. Arguments: `VideoDataModule`.
    """

    variants: ClassVar[tuple[str, ...]] = ("split1", "split2", "split3")
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "digan": DIGAN_UCF,
        "latte": LATTE,
        "pvdm": PVDM,
        "pvdm_long": PVDM_LONG,
        "stylegan_v": STYLEGAN_V.on_all(),
        "tats": VIDEOGPT,
        "tgan": TGAN,
        "tganv2": TGAN_V2,
        "videogpt": VIDEOGPT,
        "vidm": DIGAN_UCF,
    }
    expected: ClassVar[str] = "[UCF-101/]<Class>/v_<Class>_g<01-25>_c<01-07>.avi and ucfTrainTestlist/"
    how_to_get: ClassVar[str | None] = (
        "free for research: https://www.crcv.ucf.edu/data/UCF101.php, UCF101.rar (7 GB, unpack with unrar or bsdtar) "
        "and UCF101TrainTestSplits-RecognitionTask.zip"
    )

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """As `classInd.txt` numbers them."""
        return tuple(self._classes)

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        top, splits, names = self._top, self._splits, self._classes
        clips = []
        for name, label in names.items():
            folder = top / name
            files = sorted(folder.glob("*.avi"), key=lambda f: natural_key(f.name)) if folder.is_dir() else []
            for file in files:
                split = splits.get(f"{name}/{file.stem}".lower())
                if split is not None:  # a copy or a file of somebody's own is in no list
                    group = _GROUP.search(file.stem)
                    subject = f"{name}_{group[1]}" if group else file.stem
                    clips.append(ClipRecord(file.relative_to(self.root).as_posix(), label, subject, split))
        return clips

    @cached_property
    def _top(self) -> Path:
        inner = self.root / "UCF-101"
        return inner if inner.is_dir() else self.root

    @cached_property
    def _lists(self) -> Path:
        for folder in (self.root / _LISTS, self._top / _LISTS, self.root.parent / _LISTS):
            if folder.is_dir():
                return folder
        raise self._no_data(f"{_LISTS}/ with classInd.txt, trainlist0{{1,2,3}}.txt and testlist0{{1,2,3}}.txt")

    @cached_property
    def _classes(self) -> dict[str, int]:
        rows = [line.split() for line in self._read("classInd.txt")]
        try:
            return {name: int(number) - 1 for number, name in sorted(rows, key=lambda row: int(row[0]))}
        except ValueError as error:
            path = str(self._lists / "classInd.txt")
            raise UserError("expected lines of a number from 1 and a class name", path, self.how_to_get) from error

    @cached_property
    def _splits(self) -> dict[str, Split]:
        number = self.variant[-1]
        found: dict[str, Split] = {}
        lists: tuple[tuple[str, Split], ...] = (("trainlist", "train"), ("testlist", "test"))
        for name, split in lists:
            # Training lists have the class number behind the path, test lists have not. Spelling differs in case.
            for line in self._read(f"{name}0{number}.txt"):
                found[line.split()[0].removesuffix(".avi").lower()] = split
        return found

    def _read(self, name: str) -> list[str]:
        try:
            lines = (self._lists / name).read_text().splitlines()
        except OSError as error:
            raise self._no_data(f"{_LISTS}/{name}") from error
        return [line for line in lines if line.strip()]
