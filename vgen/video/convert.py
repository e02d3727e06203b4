"""The one place where pixel bytes become model values and back."""

import torch
from torch import Tensor


def to_float(video: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Converts uint8 pixels 0..255 of any shape to model values in [-1, 1]."""
    if video.dtype != torch.uint8:
        raise TypeError(f"to_float expects uint8 pixels, got {video.dtype}")
    return video.to(dtype).div_(127.5).sub_(1.0)


def to_uint8(video: Tensor) -> Tensor:
    """Converts model values (clamped to [-1, 1]) of any shape to uint8 pixels 0..255, rounding to nearest."""
    return video.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
