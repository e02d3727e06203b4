"""Softmax attention: torch's fused kernels, and the plain formula where that is faster on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.nn.precision import at_least_fp32

# The CUDA kernels put the batch on a grid axis of at most 65535 blocks; one token sequence per pixel goes beyond it.
_CUDA_BATCH = 65535
# Up to this many keys, a frame's or a coarse level's, the CPU's fused kernel is slower than the formula.
_SHORT = 64


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T + bias) v.

    Args:
        q: (N, heads, L, D). Nothing is copied where N and heads have a common stride, as in a view of (L, N, heads, D).
        k: (N, heads, S, D).
        v: (N, heads, S, D).
        bias: Added to the scaled logits, broadcast to (N, heads, L, S).
        scale: Of the logits; default 1/sqrt(D).

    Returns:
        (N, heads, L, D).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # The CPU's fused kernel gives the bias no gradient: torch would take a formula of its own, with two more passes
    # over q and k and four over the logits.
    if q.device.type == "cpu" and (k.shape[2] <= _SHORT or (bias is not None and bias.requires_grad)):
        return _by_formula(q, k, v, bias, scale)
    mask = None if bias is None else bias.to(q.dtype).expand(1, *bias.shape[-3:])
    if not q.is_cuda or len(q) <= _CUDA_BATCH:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    pieces = zip(q.split(_CUDA_BATCH), k.split(_CUDA_BATCH), v.split(_CUDA_BATCH), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*piece, attn_mask=mask, scale=scale) for piece in pieces])


def _by_formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The formula in fp32, in two matrix products and a softmax."""
    with torch.autocast(q.device.type, enabled=False):
        q, k, values = (at_least_fp32(x).flatten(0, 1) for x in (q, k, v))
        # keys before queries: torch's softmax is 10 times slower over a last dimension of less than a vector's length
        logits = torch.bmm(k, (q if scale == 1 else q * scale).mT)
        if bias is not None:
            logits = (logits.unflatten(0, v.shape[:2]) + bias.mT).flatten(0, 1)
        return torch.bmm(logits.softmax(dim=1).mT, values).unflatten(0, v.shape[:2]).to(v.dtype)


def attend_relative(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_positions: Tensor,
    value_positions: Tensor,
    bias: Tensor | None = None,
    swapped: bool = False,
) -> Tensor:
    """softmax(q (k + p_k)^T + bias) (v + p_v), with embeddings p of relative positions (Shaw et al. 2018, eq. 3, 4).

    Args:
        q: Scaled queries (N, heads, L, D).
        k: (N, heads, S, D).
        v: (N, heads, S, D).
        key_positions: p_k of each pair of query and key, (L, S, D).
        value_positions: p_v, (L, S, D).
        bias: As in `attend`.
        swapped: Add the term q p_k of (query j, key i) to the logits of (query i, key j), as LVDM's release does.

    Returns:
        (N, heads, L, D).
    """
    term = _by_position(q, key_positions.mT)
    logits = at_least_fp32(q @ k.mT) + at_least_fp32(term.mT if swapped else term)
    if bias is not None:
        logits = logits + bias
    weight = logits.softmax(dim=-1).to(v.dtype)
    return weight @ v + _by_position(weight, value_positions)


def _by_position(x: Tensor, tables: Tensor) -> Tensor:
    """(N, heads, L, A) by a matrix of each position (L, A, B) -> (N, heads, L, B), as L products of matrices."""
    rows = x.flatten(0, 1).transpose(0, 1)  # (L, N heads, A)
    return torch.bmm(rows, tables.to(x.dtype)).transpose(0, 1).unflatten(0, x.shape[:2])


def separate_images(frames: int, images: int, device: torch.device | None = None) -> Tensor:
    """The bias under which the last `images` of `frames` see themselves alone, and the others each other.

    Returns:
        (1, frames, frames): 0 where a frame sees another one, else minus infinity.
    """
    video = torch.arange(frames, device=device) < frames - images
    together = (video[:, None] & video) | torch.eye(frames, dtype=torch.bool, device=device)
    return torch.zeros(1, frames, frames, device=device).masked_fill(~together, -torch.inf)
