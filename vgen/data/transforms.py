"""From stored frames to model frames: cropping, resizing, padding, augmentation, all on bytes.

Clips are (T, H, W, 3) uint8 numpy arrays here, as PyAV and Pillow deliver them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch.nn import functional as F

Pixels = NDArray[np.uint8]
Resize = Literal["letterbox", "crop", "stretch"]
Augmentation = Literal["none", "lfae_pair", "lfdm_clip", "flip"]
_LONG = 8  # sides of pictures differ by no more than this factor before they are scaled for a centre crop


@dataclass(frozen=True)
class Crop:
    """Rows [top, bottom) and columns [left, right) of a picture of `height` x `width`; scaled for other sizes."""

    top: int
    bottom: int
    left: int
    right: int
    height: int
    width: int

    def __call__(self, clip: Pixels) -> Pixels:
        """Cuts (T, H, W, 3); at least one pixel is left."""
        down, across = clip.shape[1] / self.height, clip.shape[2] / self.width
        top, left = round(self.top * down), round(self.left * across)
        top, left = min(top, clip.shape[1] - 1), min(left, clip.shape[2] - 1)
        bottom, right = max(round(self.bottom * down), top + 1), max(round(self.right * across), left + 1)
        return clip[:, top:bottom, left:right]


def resize(clip: Pixels, size: int, mode: Resize) -> Pixels:
    """Brings frames to `size`, without the padding.

    Args:
        clip: (T, H, W, 3).
        size: Side of the square in pixels.
        mode: `letterbox`: longer side to `size`, shorter side rounded down, every pixel the mean of the area it
            covers (LFDM, which uses OpenCV's INTER_AREA); `pad` makes it square. `crop`: shorter side to `size`
            (antialiased bilinear), then centre crop. `stretch`: both sides to `size` (antialiased bilinear).

    Returns:
        (T, size, size, 3); with `letterbox` one side may be shorter.
    """
    height, width = clip.shape[1:3]
    if mode == "letterbox":
        # Whole numbers: 480 * (128 / 480) in floating point may fall below 128.
        long = max(height, width)
        return _area(clip, max(1, height * size // long), max(1, width * size // long))
    if mode == "stretch":
        return _bilinear(clip, size, size)
    short = min(height, width)
    if max(height, width) > _LONG * short:
        # What the centre crop leaves out anyway: enlarged, a strip of a few pixels' width would take gigabytes.
        top, left = max(0, height - _LONG * short) // 2, max(0, width - _LONG * short) // 2
        clip = clip[:, top : height - top, left : width - left]
        height, width = clip.shape[1:3]
    clip = _bilinear(clip, round(height * size / short), round(width * size / short))
    top, left = (clip.shape[1] - size) // 2, (clip.shape[2] - size) // 2
    return clip[:, top : top + size, left : left + size]


def pad(clip: Pixels, size: int) -> Pixels:
    """Black borders to a centred square; the odd pixel goes to the bottom or right (LFDM)."""
    rest = size - clip.shape[1], size - clip.shape[2]
    if rest == (0, 0):
        return clip
    borders = ((0, 0), *((r // 2, r - r // 2) for r in rest), (0, 0))
    return np.pad(clip, borders)


def augment(clip: Pixels, augmentation: Augmentation, rng: np.random.Generator) -> Pixels:
    """Random changes, the same for all frames of the clip.

    Args:
        clip: (T, H, W, 3).
        augmentation: `lfae_pair`: with probability 1/2 the frames are reversed, else with probability 1/2 mirrored;
            then colour jitter in random order. `lfdm_clip`: colour jitter alone, in fixed order, no mirroring (it
            would turn left into right). `flip`: mirrored with probability 1/2.
        rng: Random numbers of this clip.

    Source: LFDM (Ni et al. 2023), released data loaders of stage 1 and 2.
    """
    if augmentation == "lfae_pair":
        if rng.random() < 0.5:
            clip = clip[::-1]
        elif rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        brightness, contrast, saturation = (float(v) for v in rng.uniform(0.9, 1.1, 3))
        jitter = ColourJitter(brightness, contrast, saturation, float(rng.uniform(-0.1, 0.1)))
        return jitter(clip, [int(i) for i in rng.permutation(4)])
    if augmentation == "lfdm_clip":
        brightness = float(rng.uniform(1 - 64 / 255, 1 + 64 / 255))
        contrast, saturation = (float(v) for v in rng.uniform(0.75, 1.25, 2))
        return ColourJitter(brightness, contrast, saturation, float(rng.uniform(-0.04, 0.04)))(clip)
    if augmentation == "flip" and rng.random() < 0.5:
        return clip[:, :, ::-1]
    return clip


@dataclass(frozen=True)
class ColourJitter:
    """Pillow's brightness, contrast, saturation and hue with given strengths.

    Args:
        brightness: Factor; 1 changes nothing. So for contrast (around the frame's mean grey) and saturation.
        contrast: See brightness.
        saturation: See brightness.
        hue: Shift in turns of the colour circle, -0.5..0.5.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, clip: Pixels, order: list[int] | None = None) -> Pixels:
        """Applies the four operations (0 brightness, 1 contrast, 2 saturation, 3 hue) in the given order."""
        return np.stack([self._frame(frame, order or [0, 1, 2, 3]) for frame in clip])

    def _frame(self, frame: Pixels, order: list[int]) -> Pixels:
        image = Image.fromarray(np.ascontiguousarray(frame))
        for operation in order:
            if operation == 0:
                image = ImageEnhance.Brightness(image).enhance(self.brightness)
            elif operation == 1:
                image = ImageEnhance.Contrast(image).enhance(self.contrast)
            elif operation == 2:
                image = ImageEnhance.Color(image).enhance(self.saturation)
            else:
                hsv = np.array(image.convert("HSV"))
                hsv[..., 0] += np.uint8(int(self.hue * 255) % 256)  # wraps around, as the colour circle does
                image = Image.fromarray(hsv, "HSV").convert("RGB")
        return np.asarray(image)


def to_tensor(clip: Pixels) -> torch.Tensor:
    """(T, H, W, 3) numpy to (3, T, H, W) torch, uint8."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)))


def _bilinear(clip: Pixels, height: int, width: int) -> Pixels:
    if clip.shape[1:3] == (height, width):
        return clip
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
    # On bytes this is ten times as fast as in floating point, and differs by rounding alone.
    frames = F.interpolate(frames, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def _area(clip: Pixels, height: int, width: int) -> Pixels:
    source = clip.shape[1:3]
    if source == (height, width):
        return clip
    if height > source[0] or width > source[1]:
        return _bilinear(clip, height, width)
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
    if source[0] % height == 0 and source[1] % width == 0:
        frames = F.avg_pool2d(frames, (source[0] // height, source[1] // width))
    else:
        frames = _coverage(source[0], height) @ frames @ _coverage(source[1], width).T
    return frames.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _coverage(source: int, target: int) -> torch.Tensor:
    """(target, source) weights: the share of every source pixel in the area of a target pixel; rows add up to 1."""
    scale = source / target
    edges = np.arange(target + 1) * scale
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return torch.from_numpy((np.clip(overlap, 0, None) / scale).astype(np.float32))
