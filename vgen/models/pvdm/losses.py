"""Losses of PVDM's first stage: reconstruction, LPIPS, and what discriminators of frames and clips say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.losses import AdversarialLoss, discriminator_loss, feature_matching
from vgen.nn.precision import at_least_fp32
from vgen.video import frame_of_each

Perceptual = Callable[[Tensor, Tensor], Tensor]
PixelDistance = Literal["l1", "l2"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms.

    Paper: 1 (L1), 1 (LPIPS), 0.25 (adversarial). The released code has all of it four times, and feature matching,
    which the paper does not have.

    Args:
        pixel: Of the distance of pixels.
        perceptual: Of LPIPS.
        adversarial: Of the discriminators' judgement.
        features: Of feature matching.
    """

    pixel: float = 4.0
    perceptual: float = 4.0
    adversarial: float = 1.0
    features: float = 4.0


def reconstruction_terms(
    real: Tensor,
    fake: Tensor,
    index: Tensor,
    perceptual: Perceptual | None,
    weights: LossWeights,
    pixel: PixelDistance = "l1",
) -> dict[str, Tensor]:
    """Distance of the pixels of the clip, and LPIPS of one frame of it.

    Args:
        real: Clips (B, C, T, H, W) in [-1, 1].
        fake: Their reconstructions.
        index: The frame of each clip that LPIPS sees, (B,).
        perceptual: Distance of two (B, C, H, W) in [-1, 1]; None: no such term.
        weights: Weights of the terms.
        pixel: l1 as published, or l2.
    """
    distance = F.l1_loss if pixel == "l1" else F.mse_loss
    terms = {"pixel": weights.pixel * distance(at_least_fp32(fake), at_least_fp32(real))}
    if perceptual is not None:
        terms["perceptual"] = weights.perceptual * perceptual(frame_of_each(fake, index), frame_of_each(real, index))
    return terms


def _seen(video: Tensor, index: Tensor) -> dict[str, Tensor]:
    """What the discriminator of each name sees."""
    return {"image": frame_of_each(video, index), "video": video}


def generator_terms(
    real: Tensor, fake: Tensor, index: Tensor, discriminators: Mapping[str, nn.Module], weights: LossWeights
) -> dict[str, Tensor]:
    """What the discriminators say of the reconstruction, and the distance of their features.

    Args:
        real: Clips (B, C, T, H, W) in [-1, 1].
        fake: Their reconstructions.
        index: The frame of each clip that the discriminator of frames sees, (B,).
        discriminators: `image` and `video`, or one of them; see `PatchDiscriminator.forward`.
        weights: Weights of the terms.
    """
    with torch.no_grad():
        wanted = {name: network(_seen(real, index)[name])[1] for name, network in discriminators.items()}
    found = {name: network(_seen(fake, index)[name]) for name, network in discriminators.items()}
    judged = torch.stack([at_least_fp32(logits).mean() for logits, _ in found.values()]).sum()
    matched = torch.stack([feature_matching(features, wanted[name]) for name, (_, features) in found.items()]).sum()
    return {"adversarial": -weights.adversarial * judged, "features": weights.features * matched}


def discriminator_terms(
    real: Tensor,
    fake: Tensor,
    index: Tensor,
    discriminators: Mapping[str, nn.Module],
    weights: LossWeights,
    kind: AdversarialLoss,
) -> dict[str, Tensor]:
    """Loss of each discriminator, by its name; no gradient goes to the reconstruction.

    Args:
        real: As in `generator_terms`, and so the next three.
        fake: See above.
        index: See above.
        discriminators: See above.
        weights: Weights of the terms.
        kind: See `discriminator_loss`.
    """
    logits = [
        {name: network(_seen(video, index)[name])[0] for name, network in discriminators.items()}
        for video in (real, fake.detach())
    ]
    return {
        name: weights.adversarial * discriminator_loss(logits[0][name], logits[1][name], kind)
        for name in discriminators
    }
