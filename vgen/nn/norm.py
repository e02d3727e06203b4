"""Normalisation layers that torch does not have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
