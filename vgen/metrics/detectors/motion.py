"""Numbers of single clips behind the same interface as networks, so that they share batches, ranks and records."""

import torch
from torch import Tensor

from vgen.metrics.detectors.base import PIXELS, Detector, Identity
from vgen.metrics.detectors.flow import FlowEstimator
from vgen.metrics.vbench import dynamic_degree, frames_at, middle_frames, motion_smoothness, temporal_flickering


class Flickering(Detector):
    """VBench's temporal flickering of each clip, (B, 1); no network."""

    def __init__(self, batch: int = 16) -> None:
        super().__init__(PIXELS, batch, least_frames=2)
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        return temporal_flickering(pixels)[:, None]


class Dynamics(Detector):
    """VBench's dynamic degree of each clip, (B, 1).

    Args:
        flow: Reads the flow.
        fps: Frames per second of the clips.
        batch: Clips in each pass.
    """

    def __init__(self, flow: FlowEstimator, fps: float = 8.0, batch: int = 4) -> None:
        super().__init__(_with(flow.identity, fps=fps), batch, least_frames=2)
        self.flow, self.fps = flow, fps
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        seen = frames_at(self.fps, pixels.shape[2])
        if len(seen) < 2:
            return torch.zeros(len(pixels), 1)
        return dynamic_degree(self.flow(pixels[:, :, seen]))[:, None]


class Smoothness(Detector):
    """Motion smoothness of each clip along its flow, (B, 1).

    Args:
        flow: Reads the flow.
        batch: Clips in each pass.
    """

    def __init__(self, flow: FlowEstimator, batch: int = 4) -> None:
        super().__init__(_with(flow.identity, interpolation="half flow"), batch, least_frames=3)
        self.flow = flow
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        even = pixels[:, :, ::2]
        between = middle_frames(pixels, self.flow(even), self.flow(even, backward=True))
        return motion_smoothness(pixels, between)[:, None]


def _with(identity: Identity, **settings: object) -> Identity:
    return Identity(identity.name, identity.kind, identity.sha256, {**identity.settings, **settings})
