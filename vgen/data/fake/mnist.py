"""A tiny MNIST of printed digits, and an official-like test file of Moving MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vgen.data.digits import bounce, draw, enlarge
from vgen.files import atomic_path

_FRAMES = 20


def write_moving_mnist(root: str | Path, subjects: int = 40, takes: int = 6, seed: int = 0) -> Path:
    """Writes `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz` (28x28) and `mnist_test_seq.npy` (20, N, 64, 64).

    Args:
        root: Folder to write into.
        subjects: Training pictures; of test pictures there are half as many.
        takes: Sequences N of the test file.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root = Path(root)
    for name, count, part in (("train", max(subjects, 10), 0), ("t10k", max(subjects // 2, 10), 1)):
        labels = np.arange(count) % 10
        images = np.stack([_print_digit(int(d), np.random.default_rng([seed, part, i])) for i, d in enumerate(labels)])
        _write_idx(root / f"{name}-images-idx3-ubyte.gz", 2051, images)
        _write_idx(root / f"{name}-labels-idx1-ubyte.gz", 2049, labels.astype(np.uint8))
    pictures = enlarge(images, 32)
    times = np.arange(_FRAMES)
    clips = []
    for number in range(takes):
        scene = bounce(_FRAMES, 64, 2, len(pictures), "deterministic", (seed, number))
        clips.append(draw(scene, pictures, 64, times)[..., 0])
    with atomic_path(root / "mnist_test_seq.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.stack(clips, axis=1))
    return root


def _print_digit(digit: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    image = Image.new("L", (28, 28))
    font = ImageFont.load_default(size=float(rng.uniform(20, 26)))
    ImageDraw.Draw(image).text((14, 14), str(digit), fill=255, font=font, anchor="mm")
    return np.asarray(image.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BILINEAR))


def _write_idx(path: Path, magic: int, values: NDArray[np.uint8]) -> None:
    content = struct.pack(f">{1 + values.ndim}i", magic, *values.shape) + values.tobytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
