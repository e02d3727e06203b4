"""From the clips of a source to batches of pixels, checked."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.metrics.protocols.protocol import Quantise
from vgen.metrics.selection import ClipRef
from vgen.metrics.sources import ClipSource
from vgen.video import to_uint8

_BEYOND = 1.5  # floats that leave [-1, 1] by rounding or overshoot are cut off; those beyond this are in other units


def to_pixels(video: Tensor, quantise: Quantise = "round") -> Tensor:
    """Brings clips of any shape to 0..255.

    Args:
        video: uint8, returned as it is, or float in [-1, 1].
        quantise: `round` to the nearest byte (StyleGAN-V), `trunc` (VideoGPT, TATS, DIGAN, PVDM: half a level darker),
            or `none`.

    Returns:
        uint8, or float32 in 0..255 with `none`.
    """
    if video.dtype == torch.uint8:
        return video
    if quantise == "round":
        return to_uint8(video)
    pixels = (video.detach().float().clamp(-1, 1) + 1) * 127.5
    return pixels if quantise == "none" else pixels.to(torch.uint8)


def check_values(video: Tensor, where: str) -> None:
    """Refuses a clip (C, T, H, W) that is neither of bytes nor of floats in [-1, 1].

    Raises:
        UserError: Another kind of numbers, NaN or infinite ones, or values far outside.
    """
    if video.dtype == torch.uint8:
        return
    if not video.is_floating_point():
        raise UserError(f"clips are uint8 or float in [-1, 1], not {video.dtype}", where=where)
    finite = video.isfinite().flatten(2).all(2).all(0)
    if not finite.all():
        frame = int((~finite).nonzero()[0])
        raise UserError(f"frame {frame} is not finite (NaN or infinite)", where=where)
    if video.abs().max() > _BEYOND:
        low, high = float(video.min()), float(video.max())
        raise UserError(f"values from {low:g} to {high:g}; floats are in [-1, 1]", where=where)


class ClipReader:
    """Reads the clips of a source as pixels, all of one shape.

    Args:
        source: Where they come from.
        quantise: See `to_pixels`.
        what: `real` or `generated`, for messages.
        workers: Threads that read ahead; the result does not depend on it.
    """

    def __init__(self, source: ClipSource, quantise: Quantise, what: str, workers: int = 0) -> None:
        self.source, self.quantise, self.what, self.workers = source, quantise, what, workers
        self.ids = list(source.ids)
        self.shape: tuple[int, ...] | None = None

    def read(self, clip: ClipRef) -> Tensor:
        """One clip (C, T, H, W), uint8 or float in 0..255.

        Raises:
            UserError: NaN, values outside of [-1, 1], or another shape than that of the first clip.
        """
        video = self.source.clip(clip.video, clip.frames)
        where = f"{self.what} clip {self.ids[clip.video]}"
        if video.dim() != 4 or video.shape[0] not in (1, 3) or video.shape[1] != len(clip.frames):
            raise UserError(
                f"expected (1 or 3, {len(clip.frames)}, height, width), got {tuple(video.shape)}", where=where
            )
        check_values(video, where)
        self.shape = self.shape or tuple(video.shape)
        if tuple(video.shape) != self.shape:
            raise UserError(
                f"clips of differing sizes: this one is {_size(video.shape)}, an earlier one {_size(self.shape)}",
                where=where,
                hint="bring all clips to one size, with the filter that the training data had",
            )
        return to_pixels(video, self.quantise)

    def batches(self, clips: Sequence[ClipRef], batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Yields batches (B, C, T, H, W), given as positions in the list of clips."""
        if self.workers < 1:
            for batch in batches:
                yield torch.stack([self.read(clips[number]) for number in batch])
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting = iter(batches)
            ahead = [self._submit(pool, clips, batch) for batch in islice(waiting, 2)]
            while ahead:
                pending = ahead.pop(0)
                yield torch.stack([future.result() for future in pending])
                ahead += [self._submit(pool, clips, batch) for batch in islice(waiting, 1)]

    def _submit(self, pool: ThreadPoolExecutor, clips: Sequence[ClipRef], batch: Sequence[int]) -> list:  # type: ignore[type-arg]
        return [pool.submit(self.read, clips[number]) for number in batch]


def same_size(real: Sequence[int] | None, fake: Sequence[int] | None) -> None:
    """Refuses sets of clips of different shapes (C, T, H, W).

    Raises:
        UserError: Names both sizes.
    """
    assert real is not None and fake is not None
    if tuple(real) != tuple(fake):
        raise UserError(
            f"real clips are {_size(real)}, generated ones {_size(fake)}",
            where="the two sets of clips",
            hint="the resizing that makes them alike belongs to the protocol: do it to the real clips as in training",
        )


def _size(shape: Sequence[int]) -> str:
    channels, frames, height, width = shape
    return f"{frames} frames of {height}x{width} in {channels} channels"
