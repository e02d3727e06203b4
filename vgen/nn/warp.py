"""Coordinate grids, backward warping by absolute sampling grids, and resizing of flow fields.

A *sampling grid* holds, for every target pixel, the source coordinate (x, y) that it is read from, in [-1, 1].
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def coordinate_grid(
    height: int, width: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Corner-aligned pixel coordinates: x_j = 2j/(W-1) - 1, y_i = 2i/(H-1) - 1.

    Returns:
        (H, W, 2), last axis (x, y), in [-1, 1]. A side of one pixel has coordinate -1.
    """
    x = 2 * (torch.arange(width, device=device, dtype=dtype) / max(width - 1, 1)) - 1
    y = 2 * (torch.arange(height, device=device, dtype=dtype) / max(height - 1, 1)) - 1
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes a sampling grid bilinearly (align_corners False); the coordinates themselves keep their values.

    Args:
        grid: (N, h, w, 2).
        size: Wanted (H, W).

    Returns:
        (N, H, W, 2); the same tensor where the size already fits.
    """
    if tuple(grid.shape[1:3]) == tuple(size):
        return grid
    resized = F.interpolate(grid.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def warp(features: Tensor, grid: Tensor, padding: Literal["zeros", "border", "reflection"] = "zeros") -> Tensor:
    """Reads `features` at an absolute sampling grid, bilinearly with align_corners False.

    The grid convention of `coordinate_grid` is corner-aligned while the sampler is not: sampling with the identity
    grid zooms by W/(W-1). First-order-motion models are trained that way and compensate for it.

    Args:
        features: (N, C, h, w).
        grid: (N, H, W, 2) source coordinates (x, y).
        padding: What lies outside of `features`.

    Returns:
        (N, C, H, W), dtype of `features`.
    """
    # bf16 coordinates would be off by up to a quarter of a pixel at 128 pixels: features come up to the grid instead
    dtype = torch.promote_types(features.dtype, grid.dtype)
    read = F.grid_sample(features.to(dtype), grid.to(dtype), mode="bilinear", padding_mode=padding, align_corners=False)
    return read.to(features.dtype)
