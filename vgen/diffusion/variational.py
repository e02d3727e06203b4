"""Terms of the variational bound of a discrete diffusion, in bits per dimension (Nichol & Dhariwal 2021, section 3)."""

import math

import torch
from torch import Tensor

#: log 2: nats to bits.
_BITS = math.log(2.0)


def normal_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """KL divergence of N(mean1, exp logvar1) from N(mean2, exp logvar2), element by element, in nats."""
    spread = torch.exp(logvar1 - logvar2) + (mean1 - mean2).square() * torch.exp(-logvar2)
    return 0.5 * (logvar2 - logvar1 - 1 + spread)


def normal_cdf(y: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's distribution function that released losses use."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))


def discretised_log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Log-likelihood of 8-bit data under a Gaussian cut into 256 bins, element by element, in nats.

    Args:
        x: Data in [-1, 1], multiples of 2/255.
        mean: Mean of the Gaussian.
        logvar: Log variance.
    """
    centred, inverse = x - mean, torch.exp(-0.5 * logvar)
    above = normal_cdf(inverse * (centred + 1 / 255))
    below = normal_cdf(inverse * (centred - 1 / 255))
    log = [each.clamp(min=1e-12).log() for each in (above, 1 - below, above - below)]
    return torch.where(x < -0.999, log[0], torch.where(x > 0.999, log[1], log[2]))


def bits(nats: Tensor) -> Tensor:
    """Mean over everything but the batch, in bits: (B, ...) -> (B,)."""
    return nats.flatten(1).mean(1) / _BITS
