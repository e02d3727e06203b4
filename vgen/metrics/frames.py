"""PSNR and SSIM of pairs of clips, in the conventions that papers use. Their numbers do not compare with each other."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.metrics.per_clip import PerClipMetric

PSNRConvention = Literal["frame", "clip", "channel"]
SSIMConvention = Literal["gaussian", "uniform"]
_EQUAL = 1e-10  # below this mean squared error common_metrics calls two frames equal, and gives 100 dB
_K1, _K2 = 0.01, 0.03  # Wang et al. 2004, section III.B


def psnr(a: Tensor, b: Tensor, convention: PSNRConvention = "frame") -> Tensor:
    """Peak signal-to-noise ratio in dB of values in [0, 1].

    Args:
        a: (B, C, T, H, W) in [0, 1].
        b: The same shape.
        convention: `frame`: one error per frame over channels and pixels, and exactly 100 for (nearly) equal frames
            (common_metrics). `clip`: one error per clip (PVDM). `channel`: one PSNR per channel of each frame, then
            their mean, without bound for equal ones (SVG, Finn et al.).

    Returns:
        (B, T) float64; (B,) for `clip`.
    """
    error = (a.double() - b.double()).square()
    if convention == "clip":
        return -10 * error.flatten(1).mean(1).log10()
    if convention == "channel":
        return (-10 * error.mean((3, 4)).log10()).mean(1)
    mse = error.mean((1, 3, 4))
    return torch.where(mse < _EQUAL, 100.0, -10 * mse.log10())


def ssim(a: Tensor, b: Tensor, convention: SSIMConvention = "gaussian", data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang et al. 2004) per frame: each channel by itself, windows that fit into the picture.

    Args:
        a: (B, C, T, H, W) in [0, 1].
        b: The same shape.
        convention: `gaussian`: 11x11 window of sigma 1.5 (common_metrics, Finn et al.). `uniform`: 7x7 window with
            sample covariances (scikit-image, SVG).
        data_range: L. SVG's published numbers took 2 for values in [0, 1] (an old default of scikit-image for floats),
            which raises them.

    Returns:
        (B, T) float64.

    Raises:
        ValueError: Frames smaller than the window.
    """
    window, sample = _window(convention)
    if min(a.shape[-2:]) < len(window):
        raise ValueError(f"SSIM needs frames of at least {len(window)} pixels, got {tuple(a.shape[-2:])}")
    x, y = (video.double().transpose(1, 2).flatten(0, 2)[:, None] for video in (a, b))
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x = (_blur(x * x, window) - mean_x**2) * sample
    var_y = (_blur(y * y, window) - mean_y**2) * sample
    both = (_blur(x * y, window) - mean_x * mean_y) * sample
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    batch, channels, frames = a.shape[:3]
    return index.flatten(1).mean(1).view(batch, frames, channels).mean(2)


def _window(convention: SSIMConvention) -> tuple[Tensor, float]:
    """A separable window (K,) that sums to one, and the factor of its covariances."""
    if convention == "uniform":
        return torch.full((7,), 1 / 7, dtype=torch.float64), 49 / 48
    x = torch.arange(11, dtype=torch.float64) - 5
    weights = (-x.square() / (2 * 1.5**2)).exp()
    return weights / weights.sum(), 1.0


def _blur(x: Tensor, window: Tensor) -> Tensor:
    window = window.to(x.device)
    return F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))


class PSNR(PerClipMetric):
    """Mean PSNR in dB of pairs of clips.

    Args:
        convention: See `psnr`.
    """

    def __init__(self, convention: PSNRConvention = "frame") -> None:
        super().__init__()
        self.convention = convention

    def update(self, made: Tensor, target: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds pairs of clips (B, C, T, H, W) in [0, 1], with the subject of each for the interval."""
        self.add(psnr(made, target, self.convention).reshape(len(made), -1).mean(1), groups)


class SSIM(PerClipMetric):
    """Mean SSIM of pairs of clips.

    Args:
        convention: See `ssim`.
        data_range: See `ssim`.
    """

    def __init__(self, convention: SSIMConvention = "gaussian", data_range: float = 1.0) -> None:
        super().__init__()
        self.convention, self.data_range = convention, data_range

    def update(self, made: Tensor, target: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds pairs of clips (B, C, T, H, W) in [0, 1], with the subject of each for the interval."""
        self.add(ssim(made, target, self.convention, self.data_range).mean(1), groups)
