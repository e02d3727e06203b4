"""EDM's augmentation: random geometry that the network is told of, so that samples do not show it (appendix F.2)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Numbers that tell the network what was done: flips, scale, angle (2), stretch (2), shift (2).
LABELS = 9
_OCTAVES = 0.2  # deviation of scale and stretch, in powers of two
_SHIFT = 1 / 8  # deviation of the shift, in sides of the image


@dataclass(frozen=True)
class Augmentation:
    """Flips, scaling, rotation, stretch and shift of whole samples (Karras et al. 2022, table 6).

    Each transformation is drawn with the given probability, the horizontal flip always; a label of zero means that it
    is not there, which is what sampling asks for. Frames of a clip are transformed alike; images go on mirrored.

    The released code resamples with a wavelet filter at twice the size, this bicubically.

    Args:
        probability: Of each transformation. EDM: 0.12 for CIFAR-10, 0.15 for FFHQ and AFHQ.
    """

    probability: float = 0.12

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms samples.

        Args:
            images: (B, C, H, W), or clips (B, C, T, H, W).

        Returns:
            The same shape, and labels (B, 9).
        """
        labels = self.draw(len(images), images.device)
        frames = images if images.ndim == 4 else images.flatten(1, 2)
        theta = matrices(labels, images.shape[-2] / images.shape[-1])
        grid = F.affine_grid(theta, list(frames.shape), align_corners=False)
        moved = F.grid_sample(frames.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        # bicubic interpolation leaves the range of the data where it overshoots, and is not exact where nothing moves
        plain = labels[:, 2:].abs().amax(1) == 0
        flipped = flip(frames.float(), labels)
        found = torch.where(plain.view(-1, 1, 1, 1), flipped, moved.clamp(float(frames.min()), float(frames.max())))
        return found.to(images.dtype).view_as(images), labels

    def draw(self, batch: int, device: torch.device | None = None) -> Tensor:
        """Labels (batch, 9), from the device's global generator."""

        def chosen(values: Tensor) -> Tensor:
            return torch.where(torch.rand(batch, 1, device=device) < self.probability, values, 0.0)

        normal = torch.randn(batch, 5, device=device)
        angle, axis = (math.pi * (2 * torch.rand(2, batch, 1, device=device) - 1)).unbind(0)
        across, up = torch.randint(2, (2, batch, 1), device=device).float().unbind(0)
        turned = torch.cat((angle.cos() - 1, angle.sin()), dim=1)
        stretched = normal[:, 1:2] * torch.cat((axis.cos(), axis.sin()), dim=1)
        rest = [chosen(up), chosen(normal[:, :1]), chosen(turned), chosen(stretched), chosen(normal[:, 2:4])]
        return torch.cat((across, *rest), dim=1)


def flip(images: Tensor, labels: Tensor) -> Tensor:
    """The flips alone, exactly: images (B, C, H, W), labels (B, 9)."""
    across, up = (labels[:, i].view(-1, 1, 1, 1) > 0 for i in range(2))
    images = torch.where(across, images.flip(3), images)
    return torch.where(up, images.flip(2), images)


def matrices(labels: Tensor, aspect: float = 1.0) -> Tensor:
    """What `affine_grid` needs for labels (B, 9): from places in the result to places in the image, (B, 2, 3).

    Args:
        labels: See `Augmentation`.
        aspect: Height over width: angles are those of square pixels.
    """
    across, up, scale, cosine, sine, along, beside, right, down = labels.unbind(1)
    zero = torch.zeros_like(across)
    forward = _rows((1 - 2 * across, zero), (zero, 1 - 2 * up))
    forward = 2 ** (_OCTAVES * scale)[:, None, None] * forward
    cosine = cosine + 1
    forward = _rows((cosine, -sine), (sine, cosine)) @ forward
    # a stretch by 2^s along an axis and 2^-s across it, s (cos, sin) being the label: the exponential of
    # s ln 2 (cos 2a, sin 2a; sin 2a, -cos 2a) without the axis itself
    strength = (along**2 + beside**2).sqrt()
    axis = torch.atan2(beside, along)
    grow, shrink = 2 ** (_OCTAVES * strength), 2 ** (-_OCTAVES * strength)
    c, s = axis.cos(), axis.sin()
    stretch = _rows(
        (grow * c**2 + shrink * s**2, (grow - shrink) * c * s), ((grow - shrink) * c * s, grow * s**2 + shrink * c**2)
    )
    forward = stretch @ forward
    squared = torch.tensor([[1.0, aspect], [1 / aspect, 1.0]], device=labels.device)
    back = torch.linalg.inv(forward) * squared
    shift = 2 * _SHIFT * torch.stack((right, down), dim=1)[:, :, None]
    return torch.cat((back, -back @ shift), dim=2)


def _rows(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    return torch.stack((torch.stack(first, 1), torch.stack(second, 1)), dim=1)
