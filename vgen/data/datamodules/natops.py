"""NATOPS aircraft handling signals (Song et al. 2011) with LFDM's crop and split of subjects."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import LFDM, LFDM_PAIRS, Preset
from vgen.data.sampling import FrameSampling
from vgen.data.splits import NATOPS_CLASSES, NATOPS_TEST, NATOPS_TRAIN, Split
from vgen.data.transforms import Crop, Resize

_HEADER = re.compile(r"\s*\d+\s*,\s*\d+\s*,\s*\d+\s*$")
_TAKE = re.compile(r"\s*\d+\s*:\s*(\d+)\s*,\s*(\d+)\s*$")


class NATOPS(VideoDataModule):
    """NATOPS: 24 gestures, 20 repetitions in each file, ten training and nine test subjects (subject 1 is left out).

    Layout: `gesture<XX>/g<XX>s<YY>.avi` and `segmentation.txt` (in the root or in `data/`), 320x240 at 20 fps. Every
    repetition is one clip, cut to rows 10:239 and columns 30:290. A late repetition costs the decoding of all before
    it: `vgen data pack` pays off. Arguments: `VideoDataModule`.
    """

    class_names = NATOPS_CLASSES
    own_fps: ClassVar[float] = 20.0
    crop: ClassVar[Crop | None] = Crop(10, 239, 30, 290, height=240, width=320)
    expected: ClassVar[str] = "gesture<01-24>/g<XX>s<YY>.avi and segmentation.txt"
    how_to_get: ClassVar[str | None] = "download_natops.sh of https://github.com/yalesong/natops; terms as stated there"
    own_resize: ClassVar[Resize] = "letterbox"
    own_sampling: ClassVar[FrameSampling] = "random"
    own_eval_sampling: ClassVar[FrameSampling] = "uniform"
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "lfdm": replace(LFDM, sampling="random"),
        "lfdm_pairs": LFDM_PAIRS,
    }

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        folder = self.root if (self.root / "segmentation.txt").is_file() else self.root / "data"
        table = folder / "segmentation.txt"
        if not table.is_file():
            raise self._no_data()
        clips = []
        for (subject, gesture), takes in read_segmentation(table).items():
            path = folder / f"gesture{gesture:02d}" / f"g{gesture:02d}s{int(subject):02d}.avi"
            if subject in NATOPS_TRAIN + NATOPS_TEST and 1 <= gesture <= len(NATOPS_CLASSES):
                name = path.relative_to(self.root).as_posix()
                split: Split = "train" if subject in NATOPS_TRAIN else "test"
                clips += [
                    # A table that says nonsense is kept: the index leaves such a clip out, by name.
                    ClipRecord(name, gesture - 1, subject, split, start=first - 1, frames=last - first + 1 or -1)
                    for first, last in takes
                ]
        return clips


def read_segmentation(path: Path) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """Reads the table of repetitions.

    Blocks start with `// Subject`, gestures within them (in order, from 1) with a line of three numbers; a repetition
    is `number:first,last`, frames counted from 1, both ends included.

    Returns:
        (subject, gesture) to (first, last) of its repetitions.
    """
    segments: dict[tuple[str, int], list[tuple[int, int]]] = {}
    subject, gesture, blocks = "", 0, 0
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("// Subject"):
            blocks, gesture = blocks + 1, 0
            number = re.search(r"\d+", line)
            subject = str(int(number[0])) if number else str(blocks)
        elif _HEADER.match(line):
            gesture += 1
        elif match := _TAKE.match(line):
            segments.setdefault((subject, gesture), []).append((int(match[1]), int(match[2])))
    return segments
