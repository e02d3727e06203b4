"""Losses that are configured by plain data and know no family."""

from vgen.losses.adversarial import (
    AdversarialLoss,
    GANLoss,
    adaptive_weight,
    discriminator_loss,
    feature_matching,
    generator_loss,
)
from vgen.losses.equivariance import RandomTransform, TransformConfig, equivariance_affine, equivariance_shift
from vgen.losses.gradient_penalty import GradientPenalty
from vgen.losses.lpips import LPIPS
from vgen.losses.perceptual import FrozenVGG19, VGGPyramid
from vgen.losses.pyramid import ImagePyramid, L1Pyramid
from vgen.losses.regularisers import logit_penalty

__all__ = [
    "LPIPS",
    "AdversarialLoss",
    "FrozenVGG19",
    "GANLoss",
    "GradientPenalty",
    "ImagePyramid",
    "L1Pyramid",
    "RandomTransform",
    "TransformConfig",
    "VGGPyramid",
    "adaptive_weight",
    "discriminator_loss",
    "equivariance_affine",
    "equivariance_shift",
    "feature_matching",
    "generator_loss",
    "logit_penalty",
]
