"""Penalties on a discriminator's gradient with respect to what it sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.nn.precision import at_least_fp32

Score = Callable[[Tensor], Tensor]


def squared_gradient_norms(score: Score, samples: Tensor) -> Tensor:
    """Squared L2 norm of the gradient of each sample's score, (N,), in fp32 and differentiable itself.

    Args:
        score: The discriminator: (N, ...) -> (N, ...). Scores of several patches of a sample are added.
        samples: Where, (N, ...).
    """
    samples = samples.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(at_least_fp32(score(samples)).sum(), samples, create_graph=True)
    return at_least_fp32(gradient).flatten(1).square().sum(1)


def interpolate(real: Tensor, fake: Tensor, share: Tensor | None = None) -> Tensor:
    """Points between real and generated samples, one share of the real one for each pair; None: drawn from U(0, 1)."""
    if share is None:
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    return share * real + (1 - share) * fake


@dataclass(frozen=True)
class GradientPenalty:
    """A penalty on the discriminators' gradients.

    Args:
        kind: `r1`: weight/2 times the mean squared norm at real samples (Mescheder et al. 2018). `wgan_gp`: weight
            times the mean squared distance of the norm to 1, between real and generated ones (Gulrajani et al. 2017).
        weight: Its weight.
        every: Computed at every so many steps of the discriminators alone, and then so many times as strong (lazy
            regularisation, Karras et al. 2020).
    """

    kind: Literal["r1", "wgan_gp"] = "r1"
    weight: float = 10.0
    every: int = 1

    def __post_init__(self) -> None:
        """Refuses an interval that never comes."""
        if self.every < 1:
            raise UserError(f"must be at least 1, got {self.every}", "penalty.every")

    def __call__(self, score: Score, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty at these samples, not yet multiplied for laziness.

        Args:
            score: See `squared_gradient_norms`.
            real: Real samples (N, ...).
            fake: Generated ones, of the same shape.
        """
        if self.kind == "r1":
            return self.weight / 2 * squared_gradient_norms(score, real).mean()
        norms = squared_gradient_norms(score, interpolate(real, fake.detach())).clamp(min=1e-12).sqrt()
        return self.weight * (norms - 1).square().mean()
