"""What callbacks and commands ask of a model; a model that lacks a protocol is skipped with one line."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vgen.video.fields import Field


@runtime_checkable
class Samples(Protocol):
    """A model that generates clips."""

    def sample(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int | None = None,
        seeds: list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Generates n clips.

        All noise of clip i is a function of `seeds[i]` and the sampling step, so that batch size, number of ranks
        and order change nothing.

        Args:
            conditions: Per-clip conditions (first dimension n), as `VideoModule.conditions` returns them.
            n: Number of clips.
            frames: Frames T of each clip; None takes the number the model was trained with.
            seeds: One seed per clip; None means 0..n-1.
            options: Sampler settings that differ from the model's own (`steps`, `guidance`, `sampler`, ...).

        Returns:
            (n, C, T, H, W) in [-1, 1].
        """


@runtime_checkable
class Streams(Protocol):
    """A model that generates a video piece by piece."""

    def stream(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int,
        seeds: list[int] | None = None,
        options: dict[str, Any] | None = None,
        state: dict[str, Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """Yields pieces (n, C, t, H, W) in [-1, 1] whose t add up to `frames`, in constant memory.

        Args:
            conditions: As in `Samples.sample`.
            n: Number of videos.
            frames: Frames of each video.
            seeds: One per video; None means 0..n-1. All noise of a piece is a function of its video's seed, the
                piece's number and the sampling step.
            options: As in `Samples.sample`.
            state: A dict that the stream keeps up to date: before it yields a piece, it puts in all that it needs to
                go on behind that piece. Handed to a new stream with the same other arguments, that one yields the
                pieces that are missing, to the bit. Empty or None: from the beginning.
        """


@runtime_checkable
class Reconstructs(Protocol):
    """A model that encodes clips and decodes them again."""

    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """Returns the reconstruction of `batch["video"]`, (B, C, T, H, W) in [-1, 1]."""


@runtime_checkable
class Illustrates(Protocol):
    """A model that can show what it works with: flow, occlusion, masks."""

    def illustrate(self, batch: dict[str, Any], seeds: list[int]) -> dict[str, Tensor | Field]:
        """Returns named quantities of the clips of a batch, in the order in which they are to be shown.

        Clips that come out of the same computation may be among them, and are then not computed again: `generated`
        (what `sample` gives with these seeds) and `reconstructed` (what `reconstruct` gives).

        Args:
            batch: A batch of B clips on the device, `video` in [-1, 1].
            seeds: One per clip.

        Returns:
            Clips (B, C, T, H, W) in [-1, 1], and `Field`s of B clips.
        """
