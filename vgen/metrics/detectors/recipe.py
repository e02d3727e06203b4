"""Weights from a documented recipe: the same on every machine, for regression signals and tests without files.

Every tensor is filled from its own generator, seeded by the CRC32 of its name, with uniform numbers alone, which are
the same on all platforms. A network with such weights is a usable relative signal, but no published detector.
"""

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

# Mean blue, green and red of the clips that C3D was trained on.
C3D_MEAN_LEVEL = (90.25164795, 97.65701294, 101.4083252)


def uniform(key: str, shape: torch.Size | tuple[int, ...], salt: str = "") -> Tensor:
    """Numbers in [-1, 1) from a generator seeded by crc32(salt + key)."""
    chance = torch.Generator().manual_seed(zlib.crc32((salt + key).encode()))
    return torch.rand(math.prod(shape), generator=chance).view(shape) * 2 - 1


def fan_scaled(key: str, shape: torch.Size | tuple[int, ...], salt: str = "") -> Tensor:
    """He-like uniform weights: r sqrt(6 / fan_in)."""
    return uniform(key, shape, salt) * math.sqrt(6 / math.prod(shape[1:]))


def batch_norm_network(state: Mapping[str, Tensor], salt: str = "") -> dict[str, Tensor]:
    """Fills a convolutional network with batch norms, by the endings of its keys.

    Running variances 0.5..1.5, BN scales 0.8..1.2, means and biases within 0.1, the rest scaled by its fan-in.
    """
    filled = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            filled[key] = value
        elif key.endswith("running_var"):
            filled[key] = (uniform(key, value.shape, salt) + 1) / 2 + 0.5
        elif key.endswith("bn.weight"):
            filled[key] = 1 + 0.2 * uniform(key, value.shape, salt)
        elif key.endswith(("running_mean", "bias")):
            filled[key] = 0.1 * uniform(key, value.shape, salt)
        else:
            filled[key] = fan_scaled(key, value.shape, salt)
    return filled


def plain_network(state: Mapping[str, Tensor], salt: str = "") -> dict[str, Tensor]:
    """Fills a network without norms: weights scaled by their fan-in, biases within 0.1."""
    return {
        key: fan_scaled(key, value.shape, salt) if value.dim() > 1 else 0.1 * uniform(key, value.shape, salt)
        for key, value in state.items()
    }


def chainer_c3d(shapes: Mapping[str, tuple[int, ...]], salt: str = "") -> tuple[dict[str, Tensor], Tensor]:
    """Arrays and mean clip of a C3D in the release's layout.

    As `plain_network`, with the first weights divided by 60 (pixels are around a hundred, not one) and the last ones
    times 0.3.

    Args:
        shapes: By their Chainer names (`conv1a/W`).
        salt: Another salt gives other weights.

    Returns:
        Arrays by Chainer name, and the mean clip (3, 16, 128, 128).
    """
    scale = {"conv1a/W": 1 / 60, "fc8/W": 0.3}
    arrays = {}
    for name, shape in shapes.items():
        key = name.replace("/", ".")
        filled = fan_scaled(key, shape, salt) if name.endswith("/W") else 0.1 * uniform(key, shape, salt)
        arrays[name] = filled * scale.get(name, 1.0)
    level = torch.tensor(C3D_MEAN_LEVEL).view(3, 1, 1, 1)
    return arrays, level + 20 * uniform("mean", (3, 16, 128, 128), salt)
