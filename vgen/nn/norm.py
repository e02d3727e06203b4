"""Normalisation layers that torch does not have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.precision import at_least_fp32


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of tokens, with a gain and no bias; biased variance, statistics in fp32.

    Args:
        dim: Channels C.
        eps: Added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(1, dim, 1, 1, 1))  # the shape of video networks' released weights

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> the same shape; what is not contiguous becomes so."""
        gain = self.gamma.flatten()
        return F.layer_norm(tokens, gain.shape, gain, None, self.eps)


class ChannelRMSNorm(nn.Module):
    """Divides by the root mean square over channels, with a gain (Zhang & Sennrich 2019); statistics in fp32.

    Args:
        dim: Channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim, 1, 1, 1))  # the shape of released weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        # On a CPU a sum of squares is many times as fast as vector_norm over a dimension with strides.
        length = at_least_fp32(x).square().sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt()
        return x * (self.scale / length).to(x.dtype) * self.gamma
