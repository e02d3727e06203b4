"""A flow network on its own, so that converted weights are a model like any other."""

from typing import Any

import torch
from torch import Tensor

from vgen.nn.flow import SpyNet
from vgen.training import VideoModule
from vgen.video import ClipSpec


class FlowModel(VideoModule):
    """Estimates the optical flow of clips; not trained here.

    Args:
        clip_spec: Pairs of frames.
        network: The flow network.
    """

    def __init__(self, clip_spec: ClipSpec, network: SpyNet) -> None:
        super().__init__(clip_spec)
        self.network = network

    @torch.no_grad()
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow of frames (B, 3, H, W) in [-1, 1] towards others: (B, 2, H, W) in pixels."""
        return self.network((first + 1) / 2, (second + 1) / 2)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """There is none."""
        raise NotImplementedError("FlowModel holds converted weights, it is not trained")
