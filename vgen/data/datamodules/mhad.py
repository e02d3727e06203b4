"""UTD-MHAD (Chen et al. 2015) with LFDM's crop and split of subjects."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import LFDM, LFDM_PAIRS, Preset
from vgen.data.sampling import FrameSampling
from vgen.data.splits import MHAD_CLASSES, MHAD_TEST, MHAD_TRAIN, Split
from vgen.data.transforms import Crop, Resize
from vgen.video.io import natural_key

_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_color\.avi")


class MHAD(VideoDataModule):
    """UTD-MHAD: 27 actions, training subjects 1 2 3 5, test subjects 4 6 7 8.

    Layout: `RGB/a<action>_s<subject>_t<trial>_color.avi` (or without `RGB/`), 640x480. Frames are cut to columns
    156:492, twice the box in which the depth camera sees people.
    Arguments: `VideoDataModule`.
    """

    class_names = MHAD_CLASSES
    own_fps: ClassVar[float] = 15.0
    crop: ClassVar[Crop | None] = Crop(0, 480, 156, 492, height=480, width=640)
    expected: ClassVar[str] = "RGB/a<1-27>_s<1-8>_t<1-4>_color.avi"
    how_to_get: ClassVar[str | None] = "free download: https://personal.utdallas.edu/~kehtar/UTD-MHAD.html (RGB.zip)"
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
        folder = self.root / "RGB" if (self.root / "RGB").is_dir() else self.root
        clips = []
        for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
            match = _NAME.fullmatch(path.name)
            if match and 1 <= int(match[1]) <= len(MHAD_CLASSES) and match[2] in MHAD_TRAIN + MHAD_TEST:
                name = path.relative_to(self.root).as_posix()
                split: Split = "train" if match[2] in MHAD_TRAIN else "test"
                clips.append(ClipRecord(name, int(match[1]) - 1, match[2], split))
        return clips
