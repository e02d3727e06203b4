"""Reconstructions that a model makes for an evaluation: of the very clips that a protocol takes of the real videos."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vgen.metrics.generated import Sample, SampleStore
from vgen.metrics.protocols import Protocol
from vgen.metrics.record import described
from vgen.metrics.selection import ClipRef, Selection
from vgen.metrics.sources import ClipSource


class Reconstructions:
    """Makes reconstruction number i of an evaluation: that of the i-th chosen real clip.

    Args:
        model: A `VideoModule` that reconstructs.
        real: The real videos.
        protocol: Chooses their clips; already that of the source's data set (`Protocol.of`).

    Attributes:
        clips: The chosen clips of all trials, each once.
    """

    def __init__(self, model: Any, real: ClipSource, protocol: Protocol) -> None:
        self.model, self.real = model, real
        chosen = Selection(real, protocol)
        self.clips = list(dict.fromkeys(clip for trial in range(protocol.trials) for clip in chosen.real(trial)))
        self._list = chosen.list_hash(self.clips)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the clips, beside the model."""
        return {"reconstructed": described(self.real), "clip_list": self._list}

    @torch.no_grad()
    def __call__(self, numbers: Sequence[int]) -> list[Sample]:
        """Makes the reconstructions of these numbers, as one batch."""
        clips = [self.clips[number] for number in numbers]
        batch = {"video": torch.stack([self.real.clip(clip.video, clip.frames) for clip in clips])}
        moved = self.model.transfer_batch_to_device(batch, self.model.device, 0)
        made = self.model.reconstruct(self.model.on_after_batch_transfer(moved, 0))
        return [Sample(video, {}) for video in made.float().cpu()]


class StoredReconstructions:
    """Videos with the names and lengths of the real ones, of which the chosen clips are there, reconstructed.

    See `vgen.metrics.sources.ClipSource`.

    Args:
        store: Where they are.
        made: Which they are.
        settings: What else a record says about them.
    """

    data = split = ""

    def __init__(self, store: SampleStore, made: Reconstructions, settings: Mapping[str, Any] | None = None) -> None:
        real = made.real
        self.ids, self.lengths = real.ids, real.lengths
        self.labels, self.subjects, self.texts = real.labels, real.subjects, real.texts
        self.store, self.fingerprint = store, store.key
        self.settings = {**store.settings, **(settings or {})}
        self._numbers = {clip: number for number, clip in enumerate(made.clips)}

    def __len__(self) -> int:
        return len(self.ids)

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """See `ClipSource`; one of the chosen clips."""
        return self.store.read(self._numbers[ClipRef(number, tuple(frames))])
