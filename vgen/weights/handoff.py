"""What one stage takes over from another: the typed values that a recipe writes."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class Handoff:
    """Weights that another stage, a converted file or an export provides.

    Args:
        path: `stage://<stage>/last`, `stage://<stage>/best`, or a checkpoint file, run directory, export folder.
        weights: The raw weights or their exponential moving average.
        sha256: Hash of the file that this model was trained with; filled in when a checkpoint is written and checked
            when it is read.
    """

    path: str
    weights: Literal["raw", "ema"] = "raw"
    sha256: str | None = None


@dataclass
class WarmStart:
    """Trainable weights to begin a stage with, under a fresh optimiser.

    Args:
        path: As in `Handoff`.
        weights: The raw weights or their exponential moving average.
        include: Only parameters and buffers whose names start with one of these prefixes; empty means all.
        strict: Every included name of the model must be in the file and fit.
    """

    path: str
    weights: Literal["raw", "ema"] = "raw"
    include: tuple[str, ...] = ()
    strict: bool = True
