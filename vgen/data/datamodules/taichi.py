"""TaiChi-HD (Siarohin et al., first-order motion model, NeurIPS 2019)."""

import re
from collections.abc import Mapping
from typing import ClassVar

from vgen.data.clips import ClipRecord, is_video
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import DIGAN_TAICHI, LATTE, STYLEGAN_V, TATS_FRAMES, Preset
from vgen.data.splits import Split
from vgen.video.io import natural_key

# `<video>#<first>#<last>.mp4`; StyleGAN-V's copies have underscores, which video ids may contain, too.
_NAME = re.compile(r"(?P<video>.+)[#_](?P<first>\d+)[#_](?P<last>\d+)(\.mp4)?")


class TaiChiHD(VideoDataModule):
    """TaiChi-HD: people doing Tai Chi, 256x256, 3,049 training and 285 test chunks of 128 to 1,024 frames.

    The set itself is not handed out: the authors' script fetches what is left of 280 videos, so that everybody has
    another part of it. Layout: `{train,test}/<video>#<first>#<last>.mp4`, where `.mp4` may be a video or, by the
    script's default, a folder of `0000000.png` and so on. The subject is the source video. Arguments:
    `VideoDataModule`.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "digan": DIGAN_TAICHI,
        "latte": LATTE,
        "stylegan_v": STYLEGAN_V,
        "tats": TATS_FRAMES.at_stride(4),
        "vidm": DIGAN_TAICHI,
    }
    expected: ClassVar[str] = "{train,test}/<video>#<first>#<last>.mp4 (a video, or a folder of PNG)"
    how_to_get: ClassVar[str | None] = (
        "load_videos.py with taichi-metadata.csv of https://github.com/AliaksandrSiarohin/first-order-model, "
        "data/taichi-loading (YouTube; about 80 GB as PNG)"
    )

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        clips = []
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            folder = self.root / split
            children = folder.iterdir() if folder.is_dir() else ()
            for path in sorted(children, key=lambda p: natural_key(p.name)):
                # A folder named like a video is as good as a video; one without pictures belongs to a lost video.
                if (match := _NAME.fullmatch(path.name)) and is_video(path):
                    clips.append(ClipRecord(path.relative_to(self.root).as_posix(), None, match["video"], split))
        return clips
