"""Distances of a network's output from its target, element by element, in fp32."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Literal["l2", "l1", "huber", "charbonnier"]


def charbonnier(output: Tensor, target: Tensor, eta: float = 1e-8) -> Tensor:
    """sqrt((output - target)^2 + eta^2) (VIDM, equation 8, with eta = 1e-8), in at least fp32.

    The square of 1e-8 is 0 in fp16, and then the gradient at 0 is not a number.
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    return ((output.to(dtype) - target.to(dtype)).square() + eta**2).sqrt()


def distance(kind: Distance, output: Tensor, target: Tensor, eta: float = 1e-8) -> Tensor:
    """The named distance of every element, fp32 or more."""
    if kind == "charbonnier":
        return charbonnier(output, target, eta)
    function = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}[kind]
    dtype = torch.promote_types(output.dtype, torch.float32)
    return function(output.to(dtype), target.to(dtype), reduction="none")
