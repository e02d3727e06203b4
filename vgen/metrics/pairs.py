"""PSNR, SSIM and LPIPS of reconstructions, each under its convention."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vgen.errors import UserError, did_you_mean
from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.consistency import PixelScore
from vgen.metrics.detectors.base import PIXELS
from vgen.metrics.features import Features
from vgen.metrics.frames import psnr, ssim
from vgen.metrics.per_clip import separate
from vgen.metrics.perceptual import LPIPSConvention, LPIPSDistance
from vgen.metrics.protocols.protocol import Quantise
from vgen.metrics.ranks import raise_together, rank_and_size
from vgen.metrics.reading import ClipReader, same_size
from vgen.metrics.record import EvaluationRecord, described, versions
from vgen.metrics.selection import ClipRef
from vgen.metrics.sources import ClipSource
from vgen.nn.lpips import LPIPSBackbone as Backbone

#: Networks of LPIPS by backbone.
Distances = Mapping[Backbone, LPIPSDistance]
# Per-clip scores (B,) of two batches (B, C, T, H, W) in [0, 1], by name and convention.
FRAME_SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr/frame": lambda made, real: psnr(made, real).mean(1),
    "psnr/clip": lambda made, real: psnr(made, real, "clip"),
    "psnr/channel": lambda made, real: psnr(made, real, "channel").mean(1),
    "ssim/gaussian": lambda made, real: ssim(made, real).mean(1),
    "ssim/uniform_range1": lambda made, real: ssim(made, real, "uniform", 1.0).mean(1),
    "ssim/uniform_range2": lambda made, real: ssim(made, real, "uniform", 2.0).mean(1),
}
LPIPS_SCORES: dict[str, tuple[Backbone, LPIPSConvention]] = {
    "lpips/alex": ("alex", "mean"),
    "lpips/alex_spatial": ("alex", "spatial"),
    "lpips/vgg": ("vgg", "mean"),
    "lpips/vgg_spatial": ("vgg", "spatial"),
}
PAIR_SCORES = (*FRAME_SCORES, *LPIPS_SCORES)


def lpips_distances(metrics: Iterable[str], given: Distances | None = None) -> Distances:
    """The networks that some metrics need, by backbone: given ones, the others from their files.

    Raises:
        UserError: A missing backbone.
    """
    found = dict(given or {})
    for name in metrics:
        net = LPIPS_SCORES[name][0] if name in LPIPS_SCORES else None
        if net is not None and net not in found:
            found[net] = LPIPSDistance(net)
    return found


def compare_pairs(
    real: ClipSource,
    made: ClipSource,
    metrics: Sequence[str] = ("psnr/frame", "ssim/gaussian"),
    lpips: Distances | None = None,
    device: torch.device | str = "cpu",
    *,
    quantise: Quantise = "round",
    batch: int = 8,
    workers: int = 0,
) -> EvaluationRecord:
    """Measures reconstructions against the videos of the same names, over all frames.

    Args:
        real: The originals, all of one size and length.
        made: Their reconstructions.
        metrics: Of `FRAME_SCORES` and `LPIPS_SCORES`.
        lpips: Distances by backbone; None opens those that are needed.
        device: Where to compute.
        quantise: How floats become bytes; see `vgen.metrics.reading.to_pixels`.
        batch: Pairs at once.
        workers: Threads that read ahead.

    Returns:
        A record whose numbers carry a 95 % bootstrap interval over subjects (clips where there are none).

    Raises:
        UserError: Unknown metric, no pairs, a video without its counterpart, differing sizes, NaN frames, a missing
            backbone.
    """
    for name in metrics:
        if name not in PAIR_SCORES:
            hint = did_you_mean(name, PAIR_SCORES) or f"there are: {', '.join(PAIR_SCORES)}"
            raise UserError(f"no metric of pairs {name!r}", where="metrics", hint=hint)
    pairs = _pairs(real, made)
    readers = (ClipReader(made, quantise, "generated", workers), ClipReader(real, quantise, "real", workers))
    for reader, clips in zip(readers, pairs, strict=True):
        reader.read(clips[0])
    same_size(readers[1].shape, readers[0].shape)
    distances = lpips_distances(metrics, lpips)
    entries = score_pairs(readers, pairs, real.subjects, metrics, distances, torch.device(device), batch)
    settings = {
        "real": described(real),
        "generated": described(made),
        "clip_shape": list(readers[0].shape or ()),
        "quantise": quantise,
        "versions": versions(),
    }
    return EvaluationRecord("pairs", entries, settings)


def score_pairs(
    readers: tuple[ClipReader, ClipReader],
    pairs: tuple[Sequence[ClipRef], Sequence[ClipRef]],
    subjects: Sequence[str] | None,
    metrics: Sequence[str],
    distances: Distances,
    device: torch.device,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Entries of a record: mean of each score over all pairs, with its interval.

    Args:
        readers: Of the reconstructions and of the originals.
        pairs: Clips of both, in the same order.
        subjects: Of the videos of the originals, for the interval.
        metrics: Of `PAIR_SCORES`.
        distances: Those that `lpips_distances` gives.
        device: Where to compute.
        batch: Pairs at once.
        progress: Told how many pairs of how many are done on this rank.

    Returns:
        By the name that each number deserves: `lpips_random` where the network has seen nothing.
    """
    for distance in distances.values():
        distance.to(device)
    found = _scores(readers, pairs, subjects, metrics, distances, device, batch, progress)
    entries = {}
    for column, name in enumerate(metrics):
        values = found.values[:, column]
        low, high = bootstrap_interval(values, separate(found.subject))
        identity = distances[LPIPS_SCORES[name][0]].identity if name in LPIPS_SCORES else PIXELS
        called = name.replace("lpips/", "lpips_random/") if identity.kind == "random" else name
        entries[called] = {
            "value": float(values.mean()),
            "low": low,
            "high": high,
            "n": len(found),
            "unit": "dB" if name.startswith("psnr") else "",
            "detector": identity.to_dict(),
        }
    return entries


def _pairs(real: ClipSource, made: ClipSource) -> tuple[list[ClipRef], list[ClipRef]]:
    """The reconstructions and, in the same order, the originals, sorted by name."""
    sides = [dict(zip(source.ids, range(len(source)), strict=True)) for source in (made, real)]
    alone = sorted(set(sides[0]) ^ set(sides[1]))
    if alone:
        where = "generated" if alone[0] in sides[1] else "real"
        raise UserError(f"{len(alone)} videos without a counterpart, {alone[0]} is one", where=f"{where} videos")
    if not sides[0]:
        raise UserError("no video in the real set: nothing to compare", where="real videos")
    names = sorted(sides[0])
    lengths = (made.lengths, real.lengths)
    made_clips, real_clips = (
        [ClipRef(numbers[name], tuple(range(length[numbers[name]]))) for name in names]
        for numbers, length in zip(sides, lengths, strict=True)
    )
    return made_clips, real_clips


def _bounded(scores: Tensor, name: str) -> Tensor:
    """Refuses the infinite PSNR of equal clips (of equal frames, for `psnr/channel`), which no mean survives."""
    if not scores.isfinite().all():
        hint = "psnr/frame counts equal frames as 100 dB"
        raise UserError(f"{name} of equal clips or frames is infinite", where="metrics", hint=hint)
    return scores


def _scores(
    readers: tuple[ClipReader, ClipReader],
    pairs: tuple[Sequence[ClipRef], Sequence[ClipRef]],
    subjects: Sequence[str] | None,
    metrics: Sequence[str],
    distances: Distances,
    device: torch.device,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> Features:
    """(N, metrics) scores of all pairs from all ranks, in order."""
    rank, size = rank_and_size()
    starts = range(0, len(pairs[0]), batch)
    mine = [range(start, min(start + batch, len(pairs[0]))) for start in starts][rank::size]
    total, done = sum(len(numbers) for numbers in mine), 0
    gathered = PixelScore().to(device)
    error: Exception | None = None
    try:
        batches = (reader.batches(clips, mine) for reader, clips in zip(readers, pairs, strict=True))
        for numbers, *pixels in zip(mine, *batches, strict=True):
            made, real = (video.to(device).float() / 255 for video in pixels)
            columns = []
            for name in metrics:
                if name in FRAME_SCORES:
                    columns.append(_bounded(FRAME_SCORES[name](made, real), name))
                else:
                    net, convention = LPIPS_SCORES[name]
                    columns.append(distances[net](made, real, convention).mean(1))
            subject = None if subjects is None else [subjects[pairs[1][number].video] for number in numbers]
            gathered.update(torch.stack(columns, 1), False, torch.tensor(list(numbers)), None, subject)
            done += len(numbers)
            if progress is not None:
                progress(done, total)
    except Exception as raised:  # raised again below, on all ranks: the others would wait for this one
        error = raised
    raise_together(error)
    found = gathered.gathered("fake")
    assert found is not None
    return found
