"""SkyTimelapse (Xiong et al., "MD-GAN", CVPR 2018)."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from vgen.data.clips import ClipRecord
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import DIGAN, LATTE_SKY, PVDM, PVDM_LONG, STYLEGAN_V, TATS_FRAMES, Preset
from vgen.data.splits import Split
from vgen.video.io import IMAGE_SUFFIXES, natural_key

# Loaders of the field delete this video by hand.
_BROKEN = ("z6Yr7KDZhm0",)


class SkyTimelapse(VideoDataModule):
    """SkyTimelapse: frames of clouded skies, 640x360 JPEG, 1,825 training and 224 test sequences.

    Layout: `sky_train/<video>/<video>_<k>/<video>_<k>_frames_<8 digits>.jpg` and `sky_test/...`, in the root or in
    `sky_timelapse/`; frames may lie one level higher. The subject is the source video. Left out without a word: empty
    folders, and the video z6Yr7KDZhm0. The archive that circulates as sky_timelapse_256 has other pictures, and gives
    another FVD. Arguments: `VideoDataModule`.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "digan": DIGAN,
        "latte": LATTE_SKY,
        "pvdm": PVDM,
        "pvdm_long": PVDM_LONG,
        "stylegan_v": STYLEGAN_V,
        "tats": TATS_FRAMES,
        "vidm": DIGAN,
    }
    expected: ClassVar[str] = "[sky_timelapse/]{sky_train,sky_test}/<video>/<video>_<k>/<frames>.jpg"
    how_to_get: ClassVar[str | None] = "free for research: link in https://github.com/weixiong-ur/mdgan (Google Drive)"

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        top = next((f for f in (self.root / "sky_timelapse", self.root) if _sets(f)), self.root)
        clips = []
        for split, folder in _sets(top):
            for path in _frame_folders(folder):
                parts = path.relative_to(folder).parts
                if parts[0] not in _BROKEN:
                    clips.append(ClipRecord(path.relative_to(self.root).as_posix(), None, parts[0], split))
        return clips


def _sets(top: Path) -> list[tuple[Split, Path]]:
    names: tuple[tuple[Split, str], ...] = (("train", "sky_train"), ("test", "sky_test"))
    # Users rename the folders; DIGAN and PVDM ask for it.
    folders = [(split, top / long if (top / long).is_dir() else top / split) for split, long in names]
    return [(split, folder) for split, folder in folders if folder.is_dir()]


def _frame_folders(folder: Path) -> Iterator[Path]:
    """Folders that hold pictures, at any depth, in natural order."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    if any(not is_folder and name.lower().endswith(IMAGE_SUFFIXES) for name, is_folder in found):
        yield folder
    for name in sorted((name for name, is_folder in found if is_folder), key=natural_key):
        yield from _frame_folders(folder / name)
