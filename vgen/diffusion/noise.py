"""Noise that is a function of (seed of the clip, step) alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: noise(step, shape) -> tensor of that shape. Step 0 is the start of a trajectory, step i the i-th transition.
NoiseSource = Callable[[int, Sequence[int]], Tensor]

_MASK = (1 << 64) - 1


def mix(seed: int, step: int) -> int:
    """A 64-bit seed from two numbers (splitmix64), so that neighbouring seeds and steps share no stream."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class ClipNoise:
    """Standard normal noise for a batch of clips, one CPU generator for each clip and step.

    The noise of a clip does not depend on the other clips of the batch, on their order, on the rank or the device.

    Args:
        seeds: One seed per clip.
        device: Where the noise is wanted.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str | None = None) -> None:
        self.seeds, self.device = list(seeds), device

    def __call__(self, step: int, shape: Sequence[int]) -> Tensor:
        """Noise of `shape` (clips, ...), fp32."""
        if shape[0] != len(self.seeds):
            raise ValueError(f"{len(self.seeds)} seeds for {shape[0]} clips")
        clips = [
            torch.randn(tuple(shape[1:]), generator=torch.Generator().manual_seed(mix(seed, step)), dtype=torch.float32)
            for seed in self.seeds
        ]
        return torch.stack(clips).to(self.device, non_blocking=True)


def mixed_noise(drawn: Tensor, share: float) -> Tensor:
    """Noise whose frames have a part in common (Ge et al. 2023, "Preserve Your Own Correlation", section 3.2).

    Every frame is still standard normal, but two frames correlate by `share`: the mixed noise model with
    share = alpha^2/(1 + alpha^2). Neighbouring frames of a sample then differ less before the network has learned it.

    Args:
        drawn: Independent standard normal (B, C, T + 1, ...): the common part, then one for each frame.
        share: Share of the variance that all frames have in common, 0 to 1.

    Returns:
        (B, C, T, ...).
    """
    return share**0.5 * drawn[:, :, :1] + (1 - share) ** 0.5 * drawn[:, :, 1:]


@dataclass(frozen=True)
class ConditionNoise:
    """Noise on frames that are a condition, so that sampling stands its own errors (Ho et al. 2022, section 4).

    Args:
        mean: Of the logarithm of the standard deviation (SVD, image to video: -3.0).
        std: Of that logarithm (0.5).
    """

    mean: float = -3.0
    std: float = 0.5

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy frames of the shape (B, ...), and the level (B,) that the network may be told."""
        level = torch.exp(self.mean + self.std * torch.randn(len(frames), device=frames.device))
        noise = torch.randn_like(frames)
        return frames + level.to(frames.dtype).view(-1, *(1,) * (frames.ndim - 1)) * noise, level
