"""What is done to a discriminator's weights behind its steps, so that it stays Lipschitz."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vgen.errors import UserError
from vgen.losses.regularisers import clip_norm_scales, clip_singular_values

Mean = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Constraint(ABC):
    """Changes weights in place, on their device.

    Args:
        every: Steps of the discriminators between two times.
    """

    every: int = 1

    def __post_init__(self) -> None:
        """Refuses an interval that never comes."""
        if self.every < 1:
            raise UserError(f"must be at least 1, got {self.every}", "constraint.every")

    @abstractmethod
    def apply(self, network: nn.Module, mean: Mean) -> None:
        """Brings the weights to where they may be.

        Args:
            network: A discriminator.
            mean: Mean of a tensor over the ranks: what is not the same on all of them, such as statistics of
                BatchNorm, must go through it, or their weights part.
        """


@dataclass(frozen=True)
class SingularValueClipping(Constraint):
    """No layer stretches any direction: TGAN's way to a 1-Lipschitz critic (section 3.3).

    Args:
        every: Steps of the discriminators between two times; published: 5.
        limit: Largest singular value of a convolution, as a matrix (outputs, the rest).
        scale_floor: Least scale of a BatchNorm as a share of its standard deviation; the released code's.
    """

    every: int = 5
    limit: float = 1.0
    scale_floor: float = 0.01

    @torch.no_grad()
    def apply(self, network: nn.Module, mean: Mean) -> None:
        """Clips weights of four and more axes, and scales of BatchNorm; biases stay."""
        for weight in network.parameters():
            if weight.ndim >= 4:
                weight.copy_(clip_singular_values(weight, self.limit))
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                assert module.running_var is not None
                module.weight.copy_(clip_norm_scales(module.weight, mean(module.running_var), self.scale_floor))


@dataclass(frozen=True)
class WeightClipping(Constraint):
    """No weight is larger than a limit (Arjovsky et al. 2017, algorithm 1).

    Args:
        every: Steps of the discriminators between two times.
        limit: Largest magnitude.
    """

    limit: float = 0.01

    @torch.no_grad()
    def apply(self, network: nn.Module, mean: Mean) -> None:
        """Clips all parameters."""
        for weight in network.parameters():
            weight.clamp_(-self.limit, self.limit)
