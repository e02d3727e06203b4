"""Dimensions of VBench (Huang et al. 2024) that need no network of their own, as functions of pixels and flows.

Subject and background consistency are in `vgen.metrics.consistency`. Scores are raw; `normalised` gives the scale on
which VBench adds them up.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.metrics.per_clip import PerClipMetric

# Smallest and largest raw score of a dimension.
RANGES = {
    "subject_consistency": (0.1462, 1.0),
    "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0),
    "motion_smoothness": (0.706, 0.9975),
    "dynamic_degree": (0.0, 1.0),
}
_FPS = 8.0  # at which dynamic degree looks at a video


def normalised(dimension: str, score: float) -> float:
    """A raw score on VBench's scale from 0 to 1."""
    low, high = RANGES[dimension]
    return (score - low) / (high - low)


def temporal_flickering(pixels: Tensor) -> Tensor:
    """(255 - mean |frame_{t+1} - frame_t|) / 255: 1 is a still picture. Meant for prompts of static scenes.

    Args:
        pixels: (B, C, T, H, W) in 0..255, T >= 2.

    Returns:
        (B,) float64.
    """
    video = pixels.double()
    return 1 - (video[:, :, 1:] - video[:, :, :-1]).abs().flatten(1).mean(1) / 255


def dynamic_degree(flow: Tensor, fps: float = _FPS) -> Tensor:
    """Whether each clip moves (1 or 0).

    A pair of frames moves where the mean of the largest 5 % of flow lengths exceeds 6 pixels of a picture of 256; a
    clip of 16 frames moves where four of its pairs do, others in proportion. VBench takes every (fps / 8)-th frame.

    Args:
        flow: (B, 2, P, H, W) flow of the P pairs of neighbouring frames, in pixels.
        fps: Frames per second of the clip that the flow was read from; below or at 8 all frames are taken.

    Returns:
        (B,) float64.
    """
    if fps > _FPS:
        raise ValueError(f"thin the clip out to {_FPS:g} frames per second before reading the flow, not {fps:g}")
    lengths = flow.double().square().sum(1).sqrt().flatten(2)
    largest = lengths.topk(max(int(lengths.shape[2] * 0.05), 1), dim=2).values.mean(2)
    least = 6 * min(flow.shape[-2:]) / 256
    frames = flow.shape[2] + 1
    return ((largest > least).sum(1) >= round(4 * frames / 16)).double()


def frames_at(fps: float, frames: int) -> list[int]:
    """The frames of a clip that `dynamic_degree` looks at: every round(fps / 8)-th."""
    return list(range(0, frames, max(round(fps / _FPS), 1)))


def middle_frames(pixels: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Interpolates the odd frames of clips from the even ones along half the flow between them.

    Args:
        pixels: (B, C, T, H, W) in 0..255, T >= 3.
        forward: (B, 2, P, H, W) flow from frame 2i to frame 2i + 2, in pixels, P = (T - 1) // 2.
        backward: The same from frame 2i + 2 to frame 2i.

    Returns:
        (B, C, P, H, W): estimates of frames 1, 3, 5, ...
    """
    pairs = (pixels.shape[2] - 1) // 2
    video = pixels.float()
    before, after = video[:, :, 0 : 2 * pairs : 2], video[:, :, 2 : 2 * pairs + 1 : 2]
    # The middle frame is a quarter of a turn between both: half the displacement that leads from it to each end.
    return (_moved(before, backward / 2) + _moved(after, forward / 2)) / 2


def _moved(frames: Tensor, flow: Tensor) -> Tensor:
    """Reads frames (B, C, P, H, W) at each pixel plus flow (B, 2, P, H, W); edges are repeated."""
    batch, count = frames.shape[0], frames.shape[2]
    height, width = frames.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1).flatten(0, 1)
    flat = frames.transpose(1, 2).flatten(0, 1)
    read = F.grid_sample(flat, grid.to(flat.dtype), padding_mode="border", align_corners=False)
    return read.unflatten(0, (batch, count)).transpose(1, 2)


def motion_smoothness(pixels: Tensor, interpolated: Tensor) -> Tensor:
    """(255 - mean |odd frame - its interpolation|) / 255: 1 where frames lie on smooth paths.

    VBench interpolates by a network (AMT-S); here the caller says how, for instance by `middle_frames`, and the scores
    of two interpolators do not compare.

    Args:
        pixels: (B, C, T, H, W) in 0..255.
        interpolated: (B, C, P, H, W), estimates of frames 1, 3, 5, ...

    Returns:
        (B,) float64.
    """
    odd = pixels[:, :, 1 : 2 * interpolated.shape[2] : 2].double()
    return 1 - (odd - interpolated.double()).abs().flatten(1).mean(1) / 255


class TemporalFlickering(PerClipMetric):
    """Mean of `temporal_flickering` over clips."""

    def update(self, pixels: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds clips (B, C, T, H, W) in 0..255."""
        self.add(temporal_flickering(pixels), groups)


class DynamicDegree(PerClipMetric):
    """Share of clips that move; see `dynamic_degree`."""

    higher_is_better = None

    def update(self, flow: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds the flow (B, 2, P, H, W) of clips at 8 frames per second, in pixels."""
        self.add(dynamic_degree(flow), groups)


class MotionSmoothness(PerClipMetric):
    """Mean of `motion_smoothness` over clips, interpolated along their flow."""

    def update(
        self, pixels: Tensor, forward: Tensor, backward: Tensor, groups: Sequence[str] | Tensor | None = None
    ) -> None:
        """Adds clips and the flows between their even frames; see `middle_frames`."""
        self.add(motion_smoothness(pixels, middle_frames(pixels, forward, backward)), groups)
