"""How generated clips compare with real ones, without any network: a number that costs next to nothing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.nn.precision import at_least_fp32

_FRAMES, _SIDE = 8, 8


def sliced_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Mean over directions of the Wasserstein-1 distance of two samples of equal size, both (N, directions)."""
    return (real.sort(dim=0).values - fake.sort(dim=0).values).abs().mean()


def diversity(real: Tensor, fake: Tensor) -> Tensor:
    """Standard deviation of generated clips as a share of that of real ones, both (N, directions), N at least 2.

    1 where they differ among each other as real clips do, 0 where all of them are the same.
    """
    spread = [x.var(dim=0, correction=0).sum() for x in (fake, real)]
    return (spread[0] / spread[1].clamp(min=1e-12)).sqrt()


class ClipStatistics:
    """Collects real and generated clips of a validation, shrunk to 8 frames of 8x8 pixels, on random directions.

    The sliced Wasserstein distance of them (in units of the pixels' range of 2) tells a training that gets better from
    one that falls apart, and their diversity a generator that makes one clip only. Both are blind to detail: they are
    for choosing a checkpoint among those of one training, and compare nothing else.

    Args:
        directions: Number of directions.
        seed: Of the directions.
    """

    def __init__(self, directions: int = 256, seed: int = 0) -> None:
        self.directions, self.seed = directions, seed
        self._matrix: Tensor | None = None
        self._seen: dict[str, list[Tensor]] = {"real": [], "fake": []}

    @torch.no_grad()
    def add(self, real: Tensor, fake: Tensor) -> None:
        """Adds as many real as generated clips, (B, C, T, H, W) in [-1, 1]."""
        for name, video in (("real", real), ("fake", fake)):
            shape = (min(_FRAMES, video.shape[2]), min(_SIDE, video.shape[3]), min(_SIDE, video.shape[4]))
            small = F.adaptive_avg_pool3d(at_least_fp32(video), shape).flatten(1)
            self._seen[name].append(small @ self._directions(small))

    def _directions(self, small: Tensor) -> Tensor:
        if self._matrix is None:
            chance = torch.Generator().manual_seed(self.seed)
            matrix = torch.randn(small.shape[1], self.directions, generator=chance)
            # of length 1: a change of all pixels by 1 is one of about 1 along a random direction
            self._matrix = (matrix / matrix.norm(dim=0)).to(small)
        return self._matrix

    def compute(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """`swd` and `diversity` of all clips; fewer than two give none.

        Args:
            gather: Brings tensors of all ranks together, (N, ...) -> (ranks N, ...).
        """
        if not self._seen["real"]:
            return {}
        real, fake = (gather(torch.cat(self._seen[name])) for name in ("real", "fake"))
        if len(real) < 2:
            return {}
        return {"swd": sliced_wasserstein(real, fake), "diversity": diversity(real, fake)}
