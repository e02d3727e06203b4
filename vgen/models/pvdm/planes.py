"""The three planes that a clip is projected onto, and the order in which they lie in one flat latent (section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: Names by what is left after one axis is reduced. The release calls the plane without height `yt` and lays it out by
#: (time, width); `xt`, without width, by (time, height). This is also the order of the planes in a flat latent.
PLANES = ("xy", "yt", "xt")


@dataclass(frozen=True)
class PlaneGrid:
    """Sides of the token grid of a clip.

    Args:
        time: Frames T of the clip; time is not patched.
        height: Rows of patches H'.
        width: Columns of patches W'.
    """

    time: int
    height: int
    width: int

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Sides of each plane: xy (H', W'), yt (T, W'), xt (T, H')."""
        return {"xy": (self.height, self.width), "yt": (self.time, self.width), "xt": (self.time, self.height)}

    @property
    def tokens(self) -> int:
        """Numbers L of a flat latent in each channel: 2,048 for 16 frames of 256x256 pixels."""
        return sum(a * b for a, b in self.shapes.values())

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat latent (B, C, L) as planes (B, C, a, b)."""
        parts = flat.split([a * b for a, b in self.shapes.values()], dim=-1)
        return {name: part.unflatten(-1, shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}


def join(planes: Mapping[str, Tensor]) -> Tensor:
    """Planes (..., C, a, b) as one flat latent (..., C, L)."""
    return torch.cat([planes[name].flatten(-2) for name in PLANES], dim=-1)
