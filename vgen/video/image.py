"""Conditioning pictures: from a file or array to the size a model works at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from vgen.errors import UserError


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
        try:
            with Image.open(image) as opened:
                image = opened.convert("RGB")
        except FileNotFoundError as error:
            raise UserError("no such picture", str(image)) from error
        except (UnidentifiedImageError, OSError) as error:
            raise UserError("not a picture that can be read", str(image), "PNG and JPEG are") from error
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
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
