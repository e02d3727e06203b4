"""Embeddings of time and position."""

import math

import torch
from torch import Tensor, nn

from vgen.nn.precision import FullPrecisionBuffers, at_least_fp32


class SinusoidalEmbedding(nn.Module):
    """[sin(t f_i), cos(t f_i)] with f_i = 10000^(-i/(dim/2 - 1)), i < dim/2.

    Args:
        dim: Even size of the embedding, at least 4.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, dim), fp32."""
        half = self.dim // 2
        index = torch.arange(half, device=time.device, dtype=torch.float32)
        angle = time.float()[:, None] * torch.exp(index * -(math.log(10000) / (half - 1)))
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


def cosine_embedding(time: Tensor, dim: int) -> Tensor:
    """[cos(t f_i), sin(t f_i)] with f_i = 10000^(-2i/dim), i < dim/2, as in the code of ADM and latent diffusion.

    Args:
        time: (B,).
        dim: Size of the embedding; the last entry of an odd one is zero.

    Returns:
        (B, dim), fp32.
    """
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=time.device, dtype=torch.float32) * (-math.log(10000) / half))
    angle = time.float()[:, None] * frequencies
    return nn.functional.pad(torch.cat((angle.cos(), angle.sin()), dim=-1), (0, dim % 2))


def rotary_angles(frequencies: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The cos and sin of position x frequency, each repeated for its pair: two (length, 2 x len(frequencies)), fp32."""
    position = torch.arange(length, device=frequencies.device, dtype=torch.float32)
    angle = torch.outer(position, frequencies.float()).repeat_interleave(2, dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates interleaved pairs (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin) (RoFormer).

    Args:
        x: (..., D).
        cos: (..., R) that broadcasts with x, R <= D, the same for both features of a pair; features beyond R pass
            unchanged.
        sin: Like `cos`.

    Returns:
        (..., D), dtype of `x`.
    """
    width = cos.shape[-1]
    whole = width == x.shape[-1]
    turned = at_least_fp32(x if whole else x[..., :width])
    if torch.compiler.is_compiling():
        turned = turned * cos + quarter_turn(turned) * sin
    else:
        turned = _real(_complex(turned) * torch.complex(cos[..., ::2], sin[..., ::2]))
    turned = turned.to(x.dtype)
    return turned if whole else torch.cat((turned, x[..., width:].expand(*turned.shape[:-1], -1)), dim=-1)


def quarter_turn(x: Tensor) -> Tensor:
    """Interleaved pairs (x0, x1) -> (-x1, x0), of fp32 or fp64."""
    if torch.compiler.is_compiling():
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((-second, first), dim=-1).flatten(-2)
    return _real(_complex(x) * 1j)


# Pairs as complex numbers: kernels that swap neighbours go one by one, those of complex products by vectors, in one
# pass. A compiler fuses real arithmetic, and generates no code for complex numbers.
def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x).flatten(-2)


class RotaryEmbedding(FullPrecisionBuffers):
    """The frequencies 10000^(-2i/dim) of a rotary position embedding, shared by the layers that hold it.

    Args:
        dim: Even number of features that are rotated.
        stored: Whether the state dict has them: released weights may bring others.
    """

    freqs: Tensor

    def __init__(self, dim: int, stored: bool = False) -> None:
        super().__init__()
        frequencies = 10000.0 ** (-torch.arange(0, dim, 2).float() / dim)
        self.register_buffer("freqs", frequencies, persistent=stored)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """The cos and sin for positions 0..length-1, each (length, dim)."""
        return rotary_angles(self.freqs, length)


class RelativePositionBias(nn.Module):
    """T5's bucketed relative position bias, bidirectional: half of the buckets for keys after the query.

    Args:
        heads: Attention heads.
        num_buckets: Even number of buckets.
        max_distance: Distance from which on all keys share the last bucket.
    """

    def __init__(self, heads: int = 8, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.relative_attention_bias = nn.Embedding(num_buckets, heads)

    def buckets(self, length: int, device: torch.device) -> Tensor:
        """(length, length) bucket of each (query, key) pair."""
        position = torch.arange(length, device=device)
        behind = position[:, None] - position[None, :]  # query - key
        side = self.num_buckets // 2
        exact = side // 2
        distance = behind.abs()
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
        return side * (behind < 0) + torch.where(distance < exact, distance, far)

    def forward(self, length: int) -> Tensor:
        """Returns (heads, length, length), to be added to the attention logits."""
        weight = self.relative_attention_bias.weight
        return self.relative_attention_bias(self.buckets(length, weight.device)).permute(2, 0, 1)


class RelativePositions(nn.Module):
    """Learned embeddings of the distance of two tokens, clipped (Shaw et al. 2018, section 3.2).

    Args:
        dim: Width of an embedding: that of an attention head.
        max_distance: Distance M from which on all tokens on a side share an embedding.
    """

    def __init__(self, dim: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = nn.Parameter(torch.empty(2 * max_distance + 1, dim))
        nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, length: int) -> Tensor:
        """(length, length, dim): the embedding of key - query for each pair (query, key)."""
        position = torch.arange(length, device=self.embeddings_table.device)
        distance = (position[None, :] - position[:, None]).clamp(-self.max_distance, self.max_distance)
        return self.embeddings_table[distance + self.max_distance]


class TimestepEmbedding(nn.Module):
    """`cosine_embedding` as a layer.

    Args:
        dim: Size of the embedding.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, dim), fp32."""
        return cosine_embedding(time, self.dim)
