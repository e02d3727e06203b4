"""Optical flow of clips, for the metrics of motion."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.metrics.detectors.base import Identity, full_precision
from vgen.nn.warp import resize_grid

_LEAST = 128  # RAFT correlates at 1/8 of the size, over four levels: below that a level is empty


class FlowEstimator(nn.Module):
    """RAFT (Teed and Deng 2020) of torchvision.

    Args:
        network: Maps two batches of pictures in [-1, 1] to a list of flows, the last being the best.
        identity: Which weights.
        pairs: Pairs of frames in each pass.
    """

    def __init__(self, network: nn.Module, identity: Identity, pairs: int = 16) -> None:
        super().__init__()
        self.network, self.identity, self.pairs = network, identity, pairs
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor, step: int = 1, backward: bool = False) -> Tensor:
        """Estimates the flow between frames t and t + step.

        Args:
            pixels: (B, 3, T, H, W), uint8 or float in 0..255.
            step: Distance of the two frames.
            backward: From t + step to t instead.

        Returns:
            (B, 2, T - step, H, W): displacement (x, y) in pixels.
        """
        frames = pixels.float().transpose(1, 2) / 127.5 - 1
        first, second = frames[:, :-step], frames[:, step:]
        batch, count, _, height, width = first.shape
        # The network wants multiples of eight.
        size = tuple(max(-(-side // 8) * 8, _LEAST) for side in (height, width))
        a, b = (F.interpolate(x.flatten(0, 1), size, mode="bilinear", align_corners=False) for x in (first, second))
        if backward:
            a, b = b, a
        with full_precision(pixels.device):
            flow = torch.cat(
                [self.network(*pair)[-1] for pair in zip(a.split(self.pairs), b.split(self.pairs), strict=True)]
            )
        flow = resize_grid(flow.permute(0, 2, 3, 1), (height, width)).permute(0, 3, 1, 2)
        flow = flow * torch.tensor([width / size[1], height / size[0]], device=flow.device).view(1, 2, 1, 1)
        return flow.unflatten(0, (batch, count)).transpose(1, 2)
