"""Pictures: frames of a frame folder, and conditioning pictures in the size that a model works at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from vgen.errors import UserError
from vgen.files import why_unreadable

# A header that claims more than the largest video format (8K) lies, and would cost gigabytes for each frame.
MAX_PIXELS = 8192 * 4320
# Only these decoders are tried: others would start programs (EPS) or read whatever a file names.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
_ORIENTATION = 0x0112  # EXIF tag


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Reads a picture as (H, W, 3) uint8 RGB.

    An EXIF orientation is applied, 16-bit grey values lose their lower byte, and transparent parts are black.

    Raises:
        UserError: It cannot be read, or is larger than `MAX_PIXELS`.
    """
    reason = why_unreadable(path)
    if reason is not None:
        raise UserError("no such picture" if reason.startswith("no such") else f"no picture: {reason}", str(path))
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"a picture of {image.width}x{image.height} pixels is too large", str(path))
            return np.asarray(_to_rgb(image))
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types for a damaged file
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {str(error) or type(error).__name__}"
        raise UserError(f"not a picture that can be read{reason}", str(path), "PNG and JPEG are") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion would make everything above 255 white.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")


def load_image(image: str | Path | Any, height: int, width: int) -> Tensor:
    """Reads a picture and fits it into (3, height, width) without changing its proportions, padded with black.

    Args:
        image: Path, PIL image, (H, W, 3) uint8 array, or tensor (3, H, W): uint8 or float in [-1, 1].
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        (3, height, width) float in [-1, 1].

    Raises:
        UserError: When the file is missing or no picture.
    """
    if isinstance(image, (str, Path)):
        image = read_picture(image)
    if isinstance(image, Image.Image):
        image = np.asarray(_to_rgb(image))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if image.dtype == torch.uint8:
        image = image.float() / 127.5 - 1
    if image.shape[-2:] == (height, width):
        return image
    scale = min(height / image.shape[-2], width / image.shape[-1])
    size = (max(1, int(image.shape[-2] * scale)), max(1, int(image.shape[-1] * scale)))
    shrunk = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    canvas = torch.full((3, height, width), -1.0)
    canvas[:, top : top + size[0], left : left + size[1]] = shrunk
    return canvas.clamp_(-1, 1)
