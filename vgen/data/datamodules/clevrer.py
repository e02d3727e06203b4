"""CLEVRER (Yi et al., ICLR 2020)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from vgen.data.clips import ClipRecord, is_video
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import VIDM_FILES, Preset
from vgen.data.splits import Split
from vgen.video.io import natural_key

_NAME = re.compile(r"video_(\d{5})(\.mp4)?")
_VALIDATION, _TEST = 10_000, 15_000  # numbers of the first videos that are no longer for training, or validation


class CLEVRER(VideoDataModule):
    """CLEVRER: 20,000 rendered videos of colliding objects, 480x320, 128 frames, no labels used here.

    The number in a file's name says which set it belongs to (10,000 training, 5,000 validation and 5,000 test videos),
    so the three archives may be unpacked into one folder or into several: `video_<5 digits>.mp4`, at any depth down to
    `<archive>/<split>/video_00000-01000/`; folders of extracted frames of that name are read as well. Arguments:
    `VideoDataModule`.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        # 128 frames make the whole video one clip; training and validation videos are both trained on.
        "vidm": replace(VIDM_FILES, sampling="chunks", train_on="all"),
    }
    expected: ClassVar[str] = (
        "video_<00000-19999>.mp4, in the root or in folders such as video_train/video_00000-01000/"
    )
    how_to_get: ClassVar[str | None] = (
        "CC0: http://clevrer.csail.mit.edu/ (video_train.zip, video_validation.zip, video_test.zip)"
    )
    depth: ClassVar[int] = 3  # folders between the root and the videos

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        found: dict[int, ClipRecord] = {}
        for depth in range(self.depth + 1):
            for path in sorted(self.root.glob("*/" * depth + "video_*"), key=lambda p: natural_key(p.name)):
                match = _NAME.fullmatch(path.name)
                if match and is_video(path):
                    number = int(match[1])
                    split: Split = "train" if number < _VALIDATION else "val" if number < _TEST else "test"
                    record = ClipRecord(path.relative_to(self.root).as_posix(), None, match[1], split)
                    found.setdefault(number, record)  # a video and its extracted frames are one clip
        return [found[number] for number in sorted(found)]
