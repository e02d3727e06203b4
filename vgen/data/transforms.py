"""From stored frames to model frames: cropping, resizing, padding, augmentation, all on bytes.

Clips are (T, H, W, 3) uint8 numpy arrays here, as PyAV and Pillow deliver them.
"""

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch.nn import functional as F

Pixels = NDArray[np.uint8]
Resize = Literal["letterbox", "crop", "crop_first", "stretch", "wide"]
Filter = Literal["bilinear", "bilinear_no_antialias", "bicubic", "bicubic_no_antialias", "lanczos", "area", "nearest"]
Augmentation = Literal["none", "lfae_pair", "lfdm_clip", "flip", "crop_flip"]
_LONG = 8  # sides of pictures differ by no more than this factor before they are scaled for a centre crop
_WIDE = 4 / 3  # aspect ratio to which `wide` brings frames
_MARGIN = 4  # columns at either end that `crop_flip` never shows


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


def default_filter(mode: Resize) -> Filter:
    """The filter of a way of resizing where nothing else is said."""
    return "area" if mode == "letterbox" else "bilinear"


def resize(clip: Pixels, size: tuple[int, int], mode: Resize, filter: Filter | None = None) -> Pixels:
    """Brings frames to `size`, without padding and without the crop that follows (`fit`).

    Args:
        clip: (T, H, W, 3).
        size: Height and width in pixels.
        mode: `letterbox`: as large as fits, rounded down (LFDM). `crop`: the shorter side fits, the other is longer,
            rounded up (VideoGPT). `crop_first`: the largest centred part with the wanted aspect ratio, then that is
            resized (PVDM, DIGAN). `stretch`: both sides, whatever the aspect ratio was. `wide`: to 4/3 of the wanted
            width (TGANv2).
        filter: `bilinear`, `bicubic`, `lanczos`: antialiased, as Pillow does it. The `_no_antialias` filters sample
            two or four pixels, as `F.interpolate` and OpenCV do by default. `area`: the mean of the area that a pixel
            covers (OpenCV's INTER_AREA). `nearest`: for label maps. None: see `default_filter`.

    Returns:
        (T, h, w, 3): `size`, but shorter on one side for `letterbox`, longer for `crop` and `wide`.
    """
    (height, width), (target_height, target_width) = clip.shape[1:3], size
    if mode == "crop_first":
        if height * target_width > width * target_height:
            keep_h, keep_w = max(1, width * target_height // target_width), width
        else:
            keep_h, keep_w = height, max(1, height * target_width // target_height)
        top, left = (height - keep_h) // 2, (width - keep_w) // 2
        clip = clip[:, top : top + keep_h, left : left + keep_w]
    elif mode == "wide":
        target_width = round(target_width * _WIDE)
    elif mode == "letterbox":
        # Whole numbers: 480 * (128 / 480) in floating point may fall below 128.
        if height * target_width > width * target_height:
            target_width = max(1, width * target_height // height)
        else:
            target_height = max(1, height * target_width // width)
    elif mode == "crop":
        # What the centre crop leaves out anyway: enlarged, a strip of a few pixels' width would take gigabytes.
        top, left = max(0, height - _LONG * width) // 2, max(0, width - _LONG * height) // 2
        clip = clip[:, top : height - top, left : width - left]
        height, width = clip.shape[1:3]
        # Rounding guards against 240 * (128 / 240) coming out a little above 128.
        scale = max(target_height / height, target_width / width)
        target_height, target_width = (math.ceil(round(side * scale, 6)) for side in (height, width))
    return _scale(clip, target_height, target_width, filter or default_filter(mode))


def fit(clip: Pixels, size: tuple[int, int]) -> Pixels:
    """Cuts what is larger than `size` (height, width) around the centre; see `pad` for what is smaller."""
    top, left = (max(0, (clip.shape[1 + i] - size[i]) // 2) for i in range(2))
    return clip[:, top : top + size[0], left : left + size[1]]


def pad(clip: Pixels, size: tuple[int, int]) -> Pixels:
    """Black borders to a centred picture; the odd pixel goes to the bottom or right (LFDM)."""
    rest = size[0] - clip.shape[1], size[1] - clip.shape[2]
    if rest == (0, 0):
        return clip
    borders = ((0, 0), *((r // 2, r - r // 2) for r in rest), (0, 0))
    return np.pad(clip, borders)


def recompress(clip: Pixels, quality: int) -> Pixels:
    """Frames (T, H, W, 3) after a detour through JPEG: sets that were published as JPEG frames look like that."""
    frames = []
    for frame in clip:
        with io.BytesIO() as file:
            Image.fromarray(np.ascontiguousarray(frame)).save(file, "JPEG", quality=quality)
            frames.append(np.asarray(Image.open(file)))
    return np.stack(frames)


def augment(clip: Pixels, augmentation: Augmentation, rng: np.random.Generator) -> Pixels:
    """Random changes, the same for all frames of the clip.

    Args:
        clip: (T, H, W, 3).
        augmentation: `lfae_pair`: with probability 1/2 the frames are reversed, else with probability 1/2 mirrored;
            then colour jitter in random order. `lfdm_clip`: colour jitter alone, in fixed order, no mirroring (it
            would turn left into right). `flip`: mirrored with probability 1/2. `crop_flip`: the same, after a random
            choice of columns (see `random_columns`).
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
    if augmentation in ("flip", "crop_flip") and rng.random() < 0.5:
        return clip[:, :, ::-1]
    return clip


def random_columns(clip: Pixels, width: int, rng: np.random.Generator) -> Pixels:
    """`width` columns from a random place, at least 4 from either end where there is room (TGANv2)."""
    spare = clip.shape[2] - width
    margin = min(_MARGIN, spare // 2)
    left = int(rng.integers(margin, spare - margin + 1)) if spare > 0 else 0
    return clip[:, :, left : left + width]


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


def to_tensor(clip: Pixels, channels: int = 3) -> torch.Tensor:
    """(T, H, W, 3) numpy to (C, T, H, W) torch, uint8; C = 1 is brightness (ITU-R 601, exact on grey frames).

    A clip that lies in memory plane by plane already (see `vgen.data.shards`) is not copied.
    """
    if channels == 1:
        # Rounded integer weights, as Pillow's conversion to "L".
        weights = np.array([19595, 38470, 7471], np.uint32)
        grey = ((clip.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)
        return torch.from_numpy(grey[None])
    planes = clip.transpose(3, 0, 1, 2)
    in_order = list(planes.strides) == sorted(planes.strides, reverse=True) and planes.strides[-1] == 1
    return torch.from_numpy(planes if in_order else np.ascontiguousarray(planes))


def _scale(clip: Pixels, height: int, width: int, filter: Filter) -> Pixels:
    if clip.shape[1:3] == (height, width):
        return clip
    if filter == "area":
        return _area(clip, height, width)
    if filter == "nearest":
        rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip((height, width), clip.shape[1:3], strict=True))
        return clip[:, rows.astype(int)[:, None], columns.astype(int)]
    if filter in ("bicubic", "lanczos"):
        method = Image.Resampling.BICUBIC if filter == "bicubic" else Image.Resampling.LANCZOS
        return np.stack(
            [np.asarray(Image.fromarray(f).resize((width, height), method)) for f in np.ascontiguousarray(clip)]
        )
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
    if filter == "bilinear":
        # On bytes this is ten times as fast as in floating point, and differs by rounding alone.
        frames = F.interpolate(frames, (height, width), mode="bilinear", antialias=True, align_corners=False)
    else:
        mode = filter.removesuffix("_no_antialias")
        scaled = F.interpolate(frames.float(), (height, width), mode=mode, align_corners=False)
        # numbers between the bytes stay as they are
        frames = scaled if frames.is_floating_point() else scaled.round_().clamp_(0, 255).byte()
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def _area(clip: Pixels, height: int, width: int) -> Pixels:
    source = clip.shape[1:3]
    if height > source[0] or width > source[1]:
        return _scale(clip, height, width, "bilinear")
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
