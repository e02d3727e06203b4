"""Passing lists of clips through detectors: over several ranks, once, and never again where there is a cache."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from vgen.metrics.bank import VideoFeatureBank
from vgen.metrics.cache import FeatureCache
from vgen.metrics.catalogue import Role
from vgen.metrics.detectors.base import Detector
from vgen.metrics.features import Features
from vgen.metrics.protocols.protocol import Quantise
from vgen.metrics.ranks import from_first, raise_together, rank_and_size
from vgen.metrics.reading import ClipReader
from vgen.metrics.record import described, versions
from vgen.metrics.selection import ClipRef
from vgen.metrics.sources import ClipSource

Set = Literal["real", "generated"]
Progress = Callable[[str, int, int], None]
_log = logging.getLogger(__name__)


class FeaturePasses:
    """Features of lists of clips, by role of the detector.

    Args:
        detectors: By role.
        sources: Real and generated videos.
        quantise: How floats become bytes.
        device: Where the networks are.
        batch: Clips that are read at once. Ranks take whole batches of the same list, so that a clip has the same
            neighbours in a batch whatever the number of ranks.
        workers: Threads that read ahead.
        cache: Of the features of real clips.
        progress: Told what is read, and how many clips of how many are done on this rank.
    """

    def __init__(
        self,
        detectors: Mapping[Role, Detector],
        sources: Mapping[Set, ClipSource],
        quantise: Quantise,
        device: torch.device,
        batch: int,
        workers: int,
        cache: FeatureCache | None,
        progress: Progress | None,
    ) -> None:
        self.detectors, self.sources, self.quantise = detectors, sources, quantise
        self.device, self.batch, self.cache, self.progress = device, batch, cache, progress
        self.readers = {what: ClipReader(source, quantise, what, workers) for what, source in sources.items()}
        self._known: dict[tuple[Role, Set, str], Features] = {}

    def of(self, source: ClipSource) -> "FeaturePasses":
        """Reads another source of real clips through the same networks."""
        workers = self.readers["real"].workers
        sources: dict[Set, ClipSource] = {"real": source}
        return FeaturePasses(
            self.detectors, sources, self.quantise, self.device, self.batch, workers, self.cache, self.progress
        )

    def features(self, what: Set, clips: Sequence[ClipRef], listed: str, roles: Sequence[Role]) -> dict[Role, Features]:
        """Features of a list of clips: from an earlier call, from the cache, or from one pass for all roles.

        Args:
            what: Which source.
            clips: The list.
            listed: Its hash.
            roles: Which detectors.
        """
        for role in roles:
            if (role, what, listed) not in self._known and what == "real" and self.cache is not None:
                cached = self.cache.load(self._description(role, listed)) if rank_and_size()[0] == 0 else None
                if (found := from_first(cached)) is not None:
                    self._known[role, what, listed] = found
        missing = [role for role in roles if (role, what, listed) not in self._known]
        for role, features in self._pass(what, clips, missing).items() if missing else ():
            self._known[role, what, listed] = features
            if what == "real":
                self._keep(role, listed, features)
        return {role: self._known[role, what, listed] for role in roles}

    def _pass(self, what: Set, clips: Sequence[ClipRef], roles: Sequence[Role]) -> dict[Role, Features]:
        source, (rank, size) = self.sources[what], rank_and_size()
        starts = range(0, len(clips), self.batch)
        mine = [range(start, min(start + self.batch, len(clips))) for start in starts][rank::size]
        total, done = sum(len(part) for part in mine), 0
        labels, subjects = source.labels, source.subjects
        banks = {role: VideoFeatureBank(self.detectors[role], {}).to(self.device) for role in roles}
        error: Exception | None = None
        try:
            for numbers, pixels in zip(mine, self.readers[what].batches(clips, mine), strict=True):
                videos = [clips[number].video for number in numbers]
                label = None if labels is None else torch.tensor([labels[video] for video in videos])
                subject = None if subjects is None else [subjects[video] for video in videos]
                pixels = pixels.to(self.device)
                for bank in banks.values():
                    bank.update(pixels, what == "real", torch.tensor(list(numbers)), label, subject)
                done += len(videos)
                if self.progress is not None:
                    self.progress(what, done, total)
        except Exception as raised:  # raised again below, on all ranks: the others would wait for this one
            error = raised
        raise_together(error)
        found = {role: bank.gathered("real" if what == "real" else "fake") for role, bank in banks.items()}
        return {role: features for role, features in found.items() if features is not None}

    def _keep(self, role: Role, listed: str, features: Features) -> None:
        if self.cache is None or rank_and_size()[0] != 0:
            return
        try:
            self.cache.save(self._description(role, listed), features)
        except (OSError, SafetensorError) as error:  # a full disk costs the cache, not the evaluation
            _log.warning("features of real clips could not be kept in %s: %s", self.cache.folder, error)

    def _description(self, role: Role, listed: str) -> dict[str, Any]:
        """Everything that decides the features of a list of real clips."""
        return {
            "detector": self.detectors[role].identity.to_dict(),
            "batch": [self.batch, self.detectors[role].batch],
            "source": described(self.sources["real"]),
            "clip_list": listed,
            "quantise": self.quantise,
            "device": self.device.type,
            "versions": versions(),
        }
