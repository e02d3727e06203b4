"""MUG facial expressions (Aifanti et al. 2010) with LFDM's split of subjects."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from vgen.data.clips import ClipRecord, is_video
from vgen.data.datamodules.base import VideoDataModule
from vgen.data.presets import LFDM, LFDM_PAIRS, Preset, TrainOn
from vgen.data.sampling import FrameSampling, ShortClips
from vgen.data.splits import MUG_CLASSES, MUG_TEST, MUG_TRAIN, Split
from vgen.data.transforms import Augmentation, Filter, Resize
from vgen.video.decoding import Decoder
from vgen.video.io import natural_key


class MUG(VideoDataModule):
    """MUG: seven expressions, 26 training and 26 test subjects, whole pictures without face crop.

    Layout: `<subject>/<expression>/<take>/img_0000.jpg`, for subjects recorded twice
    `<subject>/session<n>/<expression>/<take>/...`. Arguments: `VideoDataModule`, and:

    Args:
        official_sessions: True repeats a slip of the LFDM release, on which published test numbers rest: of two
            sessions, the first is read twice and the second never.
    """

    class_names = MUG_CLASSES
    own_fps: ClassVar[float] = 19.0
    own_resize: ClassVar[Resize] = "letterbox"
    own_sampling: ClassVar[FrameSampling] = "very_random"
    own_eval_sampling: ClassVar[FrameSampling] = "uniform"
    expected: ClassVar[str] = "<subject, 3 digits>/<expression>/<take>/img_0000.jpg"
    how_to_get: ClassVar[str | None] = "licence to be signed: https://mug.ee.auth.gr/fed/"
    presets: ClassVar[Mapping[str, Preset]] = {
        **VideoDataModule.presets,
        "lfdm": replace(LFDM, sampling="very_random"),
        "lfdm_pairs": LFDM_PAIRS,
    }

    def __init__(
        self,
        root: str,
        size: int | tuple[int, int],
        frames: int,
        sampling: FrameSampling | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        repeats: int = 1,
        fps: float | None = None,
        augmentation: Augmentation | None = None,
        augment_at: Literal["published", "resized"] = "published",
        resize: Resize | None = None,
        stride: int | None = None,
        short_clips: ShortClips | None = None,
        eval_frames: int | None = None,
        eval_sampling: FrameSampling | None = None,
        eval_batch_size: int | None = None,
        val_clips: int | None = None,
        seed: int = 0,
        packed: str | None = None,
        pin_memory: bool = False,
        preset: str | None = None,
        variant: str | None = None,
        train_on: TrainOn | None = None,
        filter: Filter | None = None,
        channels: Literal[1, 3] = 3,
        decoder: Decoder = "auto",
        read_order: Literal["random", "shards"] = "random",
        official_sessions: bool = False,
    ) -> None:
        super().__init__(
            root, size, frames, sampling, batch_size, num_workers, repeats, fps, augmentation, augment_at, resize,
            stride, short_clips, eval_frames, eval_sampling, eval_batch_size, val_clips, seed, packed, pin_memory,
            preset, variant, train_on, filter, channels, decoder, read_order,
        )  # fmt: skip
        self.official_sessions = official_sessions

    def find_clips(self) -> list[ClipRecord]:
        """See `VideoDataModule`."""
        clips = []
        lists: tuple[tuple[Split, tuple[str, ...]], ...] = (("train", MUG_TRAIN), ("test", MUG_TEST))
        for split, subjects in lists:
            for subject in subjects:
                for place in self._sessions(self.root / subject):
                    for label, name in enumerate(MUG_CLASSES):
                        for take in _folders(place / name):
                            if is_video(take):
                                path = take.relative_to(self.root).as_posix()
                                clips.append(ClipRecord(path, label, subject, split))
        return clips

    def _sessions(self, folder: Path) -> list[Path]:
        sessions = [f for f in _folders(folder) if f.name.startswith("session")]
        if not sessions:
            return [folder]
        return sessions[:1] * len(sessions) if self.official_sessions else sessions


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((f for f in folder.iterdir() if f.is_dir()), key=lambda f: natural_key(f.name))
