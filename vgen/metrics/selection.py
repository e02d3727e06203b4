"""Which frames of which videos a protocol takes: a function of the videos' names and lengths, and of the seed."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
import torch

from vgen.errors import UserError
from vgen.metrics.image_to_video import clip_seed
from vgen.metrics.protocols import Protocol
from vgen.metrics.sources import ClipSource

Overlap = Literal["disjoint videos", "other windows of the same videos", "halves of the videos"]
_FLOOR_TRIAL = 1_000_000  # so that the second set of the floor draws what no trial does


@dataclass(frozen=True)
class ClipRef:
    """One clip of a source.

    Args:
        video: Number of the video within the source.
        frames: Numbers of its frames.
    """

    video: int
    frames: tuple[int, ...]


class Selection:
    """The clips that a protocol takes of a source.

    Args:
        source: The videos.
        protocol: Already that of the source's data set (`Protocol.of`).
    """

    def __init__(self, source: ClipSource, protocol: Protocol) -> None:
        self.ids, self.lengths, self.protocol = list(source.ids), list(source.lengths), protocol
        # The window of a video depends on its place among all, whichever of them are drawn.
        self._place = {video: place for place, video in enumerate(self._sorted(range(len(self.ids))))}

    def real(self, trial: int = 0) -> list[ClipRef]:
        """The real clips of a trial.

        Raises:
            UserError: No video is long enough, or one is too short where the protocol allows none.
        """
        return self._draw(self.usable(), self.protocol.n_real, self.protocol.seed + trial)

    def fake(self, trial: int = 0) -> list[ClipRef]:
        """The generated clips of a trial: the first frames of each video, in the order of the source.

        Where the source has enough for every trial, each takes its own, one after the other.

        Raises:
            UserError: A video has too few frames.
        """
        protocol, total = self.protocol, len(self.ids)
        count = min(protocol.n_fake or total, total)
        start = trial * count if total >= protocol.trials * count else 0
        span = (protocol.n_frames - 1) * protocol.fake_stride + 1
        for number in range(start, start + count):
            if self.lengths[number] < span:
                raise UserError(
                    f"the generated video {self.ids[number]} has {self.lengths[number]} frames, and {protocol.name} "
                    f"takes {span}",
                    where="generated videos",
                    hint="generate longer videos, or choose a protocol of fewer frames",
                )
        frames = tuple(range(0, span, protocol.fake_stride))
        return [ClipRef(number, frames) for number in range(start, start + count)]

    def counterparts(self, real: "Selection", trial: int = 0) -> list[ClipRef]:
        """The clips of this source that have the names and frames of the real clips: its reconstructions.

        Raises:
            UserError: A video is missing, or has another number of frames.
        """
        numbers = {name: number for number, name in enumerate(self.ids)}
        found = []
        for clip in real.real(trial):
            name, frames = real.ids[clip.video], real.lengths[clip.video]
            if name not in numbers:
                raise UserError(f"the real video {name} has no reconstruction of that name", where="generated videos")
            if self.lengths[numbers[name]] != frames:
                raise UserError(
                    f"the reconstruction of {name} has {self.lengths[numbers[name]]} frames instead of {frames}",
                    where="generated videos",
                )
            found.append(ClipRef(numbers[name], clip.frames))
        return found

    def floor(self, n_fake: int) -> tuple[list[ClipRef], list[ClipRef], Overlap]:
        """Two sets of real clips, as many as the real and the generated clips that are compared.

        The first is that of `real`. The second comes from other videos where there are enough; else it is other
        windows of the same videos, which makes the floor too low. Where a video has only one window, the sets are the
        two halves of the videos.

        Args:
            n_fake: Number of generated clips.

        Returns:
            The set that stands for the real clips, the one that stands for the generated ones, and how they relate.
        """
        usable, protocol = self.usable(), self.protocol
        real, seed = self.real(), protocol.seed + _FLOOR_TRIAL
        used = {clip.video for clip in real}
        others = [video for video in usable if video not in used]
        if len(others) >= n_fake:
            return real, self._draw(others, n_fake, seed), "disjoint videos"
        if protocol.start_policy in ("first", "uniform") or all(self._windows(video) == 1 for video in usable):
            drawn, half = _shuffled(usable, protocol.seed), len(usable) // 2
            first, second = (self._sorted(part) for part in (drawn[:half], drawn[half:]))
            halves = self._draw(first, protocol.n_real, protocol.seed), self._draw(second, n_fake, seed)
            return *halves, "halves of the videos"
        return real, self._draw(usable, n_fake, seed), "other windows of the same videos"

    def usable(self) -> list[int]:
        """The videos that are long enough, or may be filled up, sorted by name.

        Raises:
            UserError: None is, or one is too short where the protocol allows none.
        """
        protocol = self.protocol
        least = 1 if protocol.short == "repeat_last" else protocol.least_frames or protocol.span
        usable = [number for number in self._sorted(range(len(self.ids))) if self.lengths[number] >= least]
        if usable and (len(usable) == len(self.ids) or protocol.short != "error"):
            return usable
        worst = min(range(len(self.ids)), key=lambda number: self.lengths[number])
        what = "no real video has" if not usable else f"{self.ids[worst]} has not"
        raise UserError(
            f"{what} the {least} frames that {protocol.name} takes; lengths go from {self.lengths[worst]} to "
            f"{max(self.lengths)}",
            where="real videos",
        )

    def list_hash(self, clips: Sequence[ClipRef]) -> str:
        """16 hexadecimal digits over names and frames of the chosen clips, in their order."""
        listed = [[self.ids[clip.video], clip.frames] for clip in clips]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]

    def _sorted(self, numbers: Sequence[int]) -> list[int]:
        return sorted(numbers, key=lambda number: self.ids[number])

    def _draw(self, videos: list[int], n: int | None, seed: int) -> list[ClipRef]:
        """Draws n clips of these videos, in their order; all of them where there are fewer."""
        protocol = self.protocol
        counts = [self._windows(video) for video in videos] if protocol.per_video == "all" else [1] * len(videos)
        ends = list(accumulate(counts))
        places: Sequence[int] = range(ends[-1])
        if n is not None and n < len(places):
            places = places[:n] if protocol.legacy_order else sorted(_shuffled(places, seed)[:n])
        clips = []
        for place in places:
            number = bisect_right(ends, place)
            if protocol.per_video == "all":
                frames = self._window(videos[number], place - (ends[number] - counts[number]))
            else:
                frames = self._one(videos[number], clip_seed(seed, self._place[videos[number]]))
            clips.append(ClipRef(videos[number], frames))
        return clips

    def _one(self, video: int, seed: int) -> tuple[int, ...]:
        """Frames of the one clip of a video."""
        policy, frames, length = self.protocol.start_policy, self.protocol.n_frames, self.lengths[video]
        if policy == "uniform" and length >= frames:
            # Rounded as LFDM's loader does it.
            return tuple(np.linspace(0, length - 1, frames).astype(int).tolist())
        if policy in ("first", "uniform"):
            return self._window(video, 0)
        chance = torch.Generator().manual_seed(seed)
        return self._window(video, int(torch.randint(self._windows(video), (1,), generator=chance)))

    def _windows(self, video: int) -> int:
        """Number of windows that a video has, at least one."""
        protocol, length = self.protocol, self.lengths[video]
        if protocol.start_policy == "chunks":
            return max(length // protocol.span * protocol.stride, 1)
        return max(length - protocol.span + 1, 1)

    def _window(self, video: int, window: int) -> tuple[int, ...]:
        """Frames of a window; past the end the last frame stands."""
        protocol, last = self.protocol, self.lengths[video] - 1
        start = window
        if protocol.start_policy == "chunks":
            chunk, offset = divmod(window, protocol.stride)
            start = chunk * protocol.span + offset
        return tuple(min(start + protocol.stride * place, last) for place in range(protocol.n_frames))


def _shuffled(items: Sequence[int], seed: int) -> list[int]:
    chance = torch.Generator().manual_seed(seed)
    return [items[place] for place in torch.randperm(len(items), generator=chance).tolist()]
