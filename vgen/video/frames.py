"""Single frames of clips."""

import torch
from torch import Tensor


def frame_of_each(video: Tensor, index: Tensor) -> Tensor:
    """Frame `index` (B,) of each clip (B, C, T, H, W): (B, C, H, W)."""
    return video[torch.arange(len(video), device=video.device), :, index]
