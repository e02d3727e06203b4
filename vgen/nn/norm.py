"""Normalisation layers that torch does not have."""

import torch
from torch import Tensor, nn


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of a (B, C, T, H, W) tensor, with a gain and no bias; biased variance.

    Args:
        dim: Channels C.
        eps: Added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(1, dim, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Like `x`; statistics in fp32."""
        variance, mean = torch.var_mean(x.float(), dim=1, unbiased=False, keepdim=True)
        return ((x - mean) * torch.rsqrt(variance + self.eps) * self.gamma).to(x.dtype)
