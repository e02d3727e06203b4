"""Files that hold weights: our checkpoints and exports, and the official files they are converted from."""

from vgen.weights.handoff import Handoff, WarmStart

__all__ = ["Handoff", "WarmStart"]
