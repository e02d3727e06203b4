"""Attention by torch's fused kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.nn.embeddings import rotate

# The CUDA kernels put the batch on a grid axis of at most 65535 blocks; one token sequence per pixel goes beyond it.
_CUDA_BATCH = 65535


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Softmax attention with scale 1/sqrt(D).

    Args:
        q: (N, heads, L, D).
        k: (N, heads, S, D).
        v: (N, heads, S, D).
        bias: Added to the scaled logits, broadcast to (N, heads, L, S).
        rotary: cos and sin of `RotaryEmbedding` for positions 0..L-1, applied to q and k.

    Returns:
        (N, heads, L, D).
    """
    if rotary is not None:
        q, k = rotate(q, *rotary), rotate(k, *rotary)
    mask = None if bias is None else bias.to(q.dtype).expand(1, *bias.shape[-3:])
    if not q.is_cuda or len(q) <= _CUDA_BATCH:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    pieces = zip(q.split(_CUDA_BATCH), k.split(_CUDA_BATCH), v.split(_CUDA_BATCH), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*piece, attn_mask=mask) for piece in pieces])
