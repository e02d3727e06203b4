"""Drawing from the logits of an autoregressive model."""

import torch
from torch import Tensor


def keep_likely(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Leaves out what is unlikely: minus infinity in its place.

    Args:
        logits: (..., K).
        top_k: How many of the likeliest stay; None: all.
        top_p: The likeliest stay until their probabilities add up to that (nucleus sampling, Holtzman et al. 2020),
            at least one; None: all.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        share = ordered.softmax(-1)
        before = share.cumsum(-1) - share  # of what is likelier
        unlikely = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(unlikely, -torch.inf)
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws by the inverse of the distribution function, so that one number decides.

    Args:
        logits: (N, K).
        uniform: (N,) in [0, 1).

    Returns:
        (N,) int64.
    """
    summed = logits.float().softmax(-1).cumsum(-1)
    place = torch.searchsorted(summed, uniform[:, None] * summed[:, -1:], right=True)[:, 0]
    return place.clamp(max=logits.shape[-1] - 1)
