"""Losses that are configured by plain data and know no family."""

from vgen.losses.adversarial import AdversarialLoss, adaptive_weight, discriminator_loss, feature_matching
from vgen.losses.equivariance import RandomTransform, TransformConfig, equivariance_affine, equivariance_shift
from vgen.losses.lpips import LPIPS
from vgen.losses.perceptual import FrozenVGG19, VGGPyramid
from vgen.losses.pyramid import ImagePyramid, L1Pyramid
from vgen.losses.regularisers import logit_penalty

__all__ = [
    "LPIPS",
    "AdversarialLoss",
    "FrozenVGG19",
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
    "logit_penalty",
]
