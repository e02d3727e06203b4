"""Penalties that keep a network's outputs in a useful range."""

import torch.nn.functional as F
from torch import Tensor


def logit_penalty(logits: Tensor, margin: float = 3.0) -> Tensor:
    """Mean square of how far logits lie beyond +-margin: keeps a sigmoid map from saturating.

    An occlusion map that is 1 everywhere bypasses the decoder, gives it no gradient and leaves nothing to learn.
    """
    return F.relu(logits.float().abs() - margin).square().mean()
