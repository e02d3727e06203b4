"""What a distance does not tell: whether generated clips repeat training clips, and whether they differ at all.

Both are read in the feature space of the detector that the protocol's metrics rest on: Euclidean distances of clips'
features, in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vgen.metrics.catalogue import Role
from vgen.metrics.detectors.base import Identity
from vgen.metrics.diversity import mean_distance
from vgen.metrics.features import Features
from vgen.metrics.passes import FeaturePasses, Set
from vgen.metrics.protocols import Protocol
from vgen.metrics.selection import ClipRef, Selection
from vgen.metrics.sources import ClipSource

_ROWS = 1024  # rows of a distance matrix held at once
CLOSE = 0.05  # quantile of the reference below which a generated clip counts as close to a training clip


@dataclass(frozen=True)
class Compared:
    """What a comparison has read, in its first trial: handed to those who look further.

    Args:
        protocol: As it was applied.
        passes: Reads further lists through the same networks.
        role: The detector of the protocol's first metric that compares; None: no metric does.
        selections: How the protocol chooses, of both sides.
        clips: The chosen clips of both sides.
        features: Those of `role`, of both sides; empty without it.
    """

    protocol: Protocol
    passes: FeaturePasses
    role: Role | None
    selections: Mapping[Set, Selection]
    clips: Mapping[Set, list[ClipRef]]
    features: Mapping[Set, Features]


@dataclass(frozen=True)
class Study:
    """Neighbours and diversity of generated clips.

    Args:
        detector: Whose features they are.
        training: Where training clips come from.
        training_clips: Those that were looked at.
        distances: (N, k) of each generated clip to its nearest training clips, increasing.
        neighbours: (N, k) places of those in `training_clips`.
        reference: (M,) distance of each reference clip to its nearest training clip.
        reference_is: What the reference clips are.
        diversity: Mean distance of two generated clips.
        real_diversity: Mean distance of two real clips.
    """

    detector: Identity
    training: ClipSource
    training_clips: list[ClipRef]
    distances: Tensor
    neighbours: Tensor
    reference: Tensor
    reference_is: str
    diversity: float
    real_diversity: float

    @property
    def bound(self) -> float:
        """Distance below which the closest 5 % of the reference clips lie."""
        return float(self.reference.quantile(CLOSE))

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        nearest = self.distances[:, 0]
        sides = {"generated": nearest, "reference": self.reference}
        figures = {
            name: {
                "n": len(values),
                "least": float(values.min()),
                "quantile_5": float(values.quantile(CLOSE)),
                "median": float(values.median()),
            }
            for name, values in sides.items()
        }
        return {
            "detector": self.detector.to_dict(),
            "neighbours": {
                "training_clips": len(self.training_clips),
                "data": self.training.data,
                "split": self.training.split,
                **figures,
                "reference_is": self.reference_is,
                "share_closer_than_reference_5": float((nearest < self.bound).double().mean()),
            },
            "diversity": {
                "generated": self.diversity,
                "real": self.real_diversity,
                "ratio": self.diversity / self.real_diversity if self.real_diversity > 0 else float("nan"),
            },
        }


def study(
    compared: Compared, training: ClipSource, held_out: ClipSource | None = None, most: int = 2048, k: int = 3
) -> Study | None:
    """Looks for training clips that generated ones repeat, and measures how much generated clips differ.

    One window per training video is looked at, chosen as the protocol does. Every rank has to ask.

    Args:
        compared: From `vgen.metrics.evaluation.compare`.
        training: What the model was trained on.
        held_out: Real clips that it was not trained on; None, or none long enough: training clips themselves, each
            without its own video.
        most: Training clips at most (and reference clips).
        k: Neighbours of each generated clip.

    Returns:
        The study; None where no metric has features of clips, or there are fewer than two training clips.
    """
    if compared.role is None:
        return None
    fake, real = (_rows(compared.features[side]) for side in ("generated", "real"))
    read = _read(compared, training, most)
    if read is None or len(read[0]) < 2:
        return None
    clips, known = read
    others = None if held_out is None else _read(compared, held_out, most)
    if others is not None and len(others[0]):
        reference, what = nearest(others[1], known)[0][:, 0], "held-out real clips"
    else:
        reference, what = nearest(known, known, apart=True)[0][:, 0], "training clips, each without itself"
    distances, neighbours = nearest(fake, known, k)
    identity = compared.passes.detectors[compared.role].identity
    diversity = (float(mean_distance(fake)), float(mean_distance(real)))
    return Study(identity, training, clips, distances, neighbours, reference, what, *diversity)


def _read(compared: Compared, source: ClipSource, most: int) -> tuple[list[ClipRef], Tensor] | None:
    """At most so many clips of a source, one per video where the protocol has windows, and their features."""
    protocol, passes, role = replace(compared.protocol, n_real=most), compared.passes, compared.role
    assert role is not None
    selection = Selection(source, protocol)
    least = 1 if protocol.short == "repeat_last" else protocol.least_frames or protocol.span
    if len(source) == 0 or max(source.lengths) < least:
        return None
    clips = selection.real()
    if source is not passes.sources["real"]:
        passes = passes.of(source)
    return clips, _rows(passes.features("real", clips, selection.list_hash(clips), [role])[role])


def _rows(features: Features) -> Tensor:
    """One row per clip, float64: features of frames are averaged."""
    values = features.values.double()
    return values if values.dim() == 2 else values.mean(1)


def nearest(rows: Tensor, among: Tensor, k: int = 1, apart: bool = False) -> tuple[Tensor, Tensor]:
    """The k nearest rows of another set.

    Args:
        rows: (N, D).
        among: (M, D), at least k rows (k + 1 with `apart`, else fewer are returned).
        k: How many.
        apart: Both sets are the same, and no row is its own neighbour.

    Returns:
        Distances (N, k), increasing, and places (N, k) in `among`.
    """
    k = min(k, len(among) - apart)
    found = []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        # Without the matrix product, whose rounding hides equal rows.
        distances = torch.cdist(part, among, compute_mode="donot_use_mm_for_euclid_dist")
        if apart:
            own = torch.arange(len(part))
            distances[own, own + start] = float("inf")
        found.append(distances.topk(k, dim=1, largest=False))
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])
