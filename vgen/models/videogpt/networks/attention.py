"""Multi-head attention with the release's projections: along axes, causal (full or sparse), and to a condition."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.attention import attend

Shape = tuple[int, int, int]
AttentionType = Literal["full", "sparse"]


def strided_layout(shape: Shape, block: int = 32, local_blocks: int = 4) -> Tensor:
    """Which blocks of tokens attend to which, in the sparse attention of the released priors (Child et al. 2019).

    Tokens lie in the order time, height, width. A block attends to itself and the `local_blocks` before it, and to the
    block at its own place in every earlier frame.

    Args:
        shape: Grid of tokens (T, H, W); the last block may reach beyond it.
        block: Tokens of a block.
        local_blocks: Earlier blocks that are near.

    Returns:
        (blocks, blocks) bool.
    """
    blocks = -(-shape[0] * shape[1] * shape[2] // block)
    stride = max(shape[1] * shape[2] // block, 1)
    query, key = torch.arange(blocks)[:, None], torch.arange(blocks)
    distance = query - key
    return (distance >= 0) & ((distance <= local_blocks) | (distance % stride == 0))


class BlockLayout(nn.Module):
    """Which keys the queries of each block see, so that only these are computed with.

    Args:
        shape: Grid of tokens (T, H, W).
        block: Tokens of a block.
        local_blocks: Earlier blocks that are near.
    """

    seen: Tensor
    mask: Tensor

    def __init__(self, shape: Shape, block: int, local_blocks: int) -> None:
        super().__init__()
        self.block, self.length = block, shape[0] * shape[1] * shape[2]
        device = torch.empty(0).device  # where modules are made now; the table itself is drawn up on the CPU
        with torch.device("cpu"):
            seen, mask = self._tables(shape, block, local_blocks)
        self.register_buffer("seen", seen.to(device), persistent=False)
        self.register_buffer("mask", mask.to(device), persistent=False)

    def _tables(self, shape: Shape, block: int, local_blocks: int) -> tuple[Tensor, Tensor]:
        """Blocks that each block sees, (blocks, most), and which of their tokens, (blocks, block, most block)."""
        layout = strided_layout(shape, block, local_blocks)
        blocks, most = len(layout), int(layout.sum(1).max())
        # Numbers of the blocks that each one sees, filled up with its own, which the mask then leaves out.
        seen = torch.arange(blocks)[:, None].expand(-1, most).clone()
        real = torch.zeros(blocks, most, dtype=torch.bool)
        for row in range(blocks):
            found = layout[row].nonzero()[:, 0]
            seen[row, : len(found)], real[row, : len(found)] = found, True
        query = torch.arange(blocks * block).view(blocks, block, 1)
        key = (seen[:, :, None] * block + torch.arange(block)).flatten(1)[:, None]
        mask = (key <= query) & real.repeat_interleave(block, 1)[:, None]
        rows = mask.flatten(0, 1)[: self.length]
        keys = key.expand(-1, block, -1).flatten(0, 1)
        self._keys = [keys[position][rows[position]].sort().values for position in range(self.length)]
        return seen, mask

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Softmax attention of (N, heads, L, D) within the layout."""
        (n, heads, length, _), blocks = q.shape, len(self.seen)
        fill = blocks * self.block - length
        q, k, v = (F.pad(x, (0, 0, 0, fill)).unflatten(2, (blocks, self.block)) for x in (q, k, v))
        k, v = (x[:, :, self.seen].flatten(3, 4).flatten(0, 1) for x in (k, v))  # (N heads, blocks, keys, D)
        found = F.scaled_dot_product_attention(q.flatten(0, 1), k, v, attn_mask=self.mask)
        return found.unflatten(0, (n, heads)).flatten(2, 3)[:, :, :length]

    def keys_of(self, position: int, device: torch.device) -> Tensor:
        """Numbers of the tokens that a token sees, itself among them."""
        return self._keys[position].to(device, non_blocking=True)


class Projections(nn.Module):
    """Queries, keys and values without biases, and the projection behind the heads.

    Heads are groups of channels that lie together. Values may have another width than queries and keys.

    Args:
        query_dim: Channels of queries' inputs, and of the output.
        key_dim: Channels of keys' and values' inputs.
        hidden: Channels of queries and keys.
        values: Channels of values.
        heads: Attention heads.
        layers: Layers of the network: the output's initial values are N(0, 1/sqrt(dim layers)).
    """

    def __init__(self, query_dim: int, key_dim: int, hidden: int, values: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_dim, hidden, bias=False)
        self.key = nn.Linear(key_dim, hidden, bias=False)
        self.value = nn.Linear(key_dim, values, bias=False)
        self.out = nn.Linear(values, query_dim)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.normal_(self.out.weight, std=(query_dim * layers) ** -0.5)
        nn.init.zeros_(self.out.bias)

    def split(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, heads, L, C / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """The inverse of `split`, and the last projection."""
        out: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return out


class AxialAttention(nn.Module):
    """Attention along each axis of a grid by itself, all from the same input, summed (Ho et al. 2019).

    Args:
        channels: Channels C.
        heads: Attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        sizes = (channels, channels, channels, channels, heads, 1)
        self.width, self.height, self.time = Projections(*sizes), Projections(*sizes), Projections(*sizes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        tokens = x.movedim(1, -1)
        out = torch.zeros_like(tokens)
        for axis, part in ((3, self.width), (2, self.height), (1, self.time)):
            lines = tokens.movedim(axis, -2)
            flat = lines.flatten(0, -3)
            found = attend(part.split(part.query(flat)), part.split(part.key(flat)), part.split(part.value(flat)))
            out = out + part.merge(found).view(lines.shape).movedim(-2, axis)
        return out.movedim(-1, 1)


class KeyValues:
    """Keys and values of the tokens so far of one layer.

    Args:
        length: Tokens in all.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def put(self, position: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores those of one token (N, heads, 1, D), and returns all so far."""
        if self.keys is None or self.values is None:
            shape = (*key.shape[:2], self.length)
            self.keys, self.values = key.new_empty(*shape, key.shape[3]), value.new_empty(*shape, value.shape[3])
        self.keys[:, :, position : position + 1], self.values[:, :, position : position + 1] = key, value
        return self.keys[:, :, : position + 1], self.values[:, :, : position + 1]


class CausalAttention(nn.Module):
    """Attention of each token of a grid to itself and those before it: to all, or within a `BlockLayout`.

    Args:
        dim: Channels.
        heads: Attention heads.
        layers: Layers of the network, for the initial values.
        dropout: Of attention weights, in training; none within a layout, as released.
    """

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.projections = Projections(dim, dim, dim, dim, heads, layers)
        self.dropout = dropout

    def forward(self, x: Tensor, layout: BlockLayout | None) -> Tensor:
        """(B, L, C) -> the same shape."""
        part = self.projections
        q, k, v = (part.split(layer(x)) for layer in (part.query, part.key, part.value))
        if layout is not None:
            return part.merge(layout.attend(q, k, v))
        drop = self.dropout if self.training else 0.0
        return part.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop))

    def step(self, x: Tensor, position: int, cache: KeyValues, seen: Tensor | None) -> Tensor:
        """One token (B, 1, C), given keys and values of those before it, of which it sees some or (None) all."""
        part = self.projections
        q = part.split(part.query(x))
        k, v = cache.put(position, part.split(part.key(x)), part.split(part.value(x)))
        if seen is not None:
            k, v = k[:, :, seen], v[:, :, seen]
        return part.merge(F.scaled_dot_product_attention(q, k, v))


class CrossAttention(nn.Module):
    """Attention to the features of given frames; values keep their width until the last projection.

    Args:
        dim: Channels of the tokens.
        condition_dim: Channels of the features.
        heads: Attention heads; they divide both.
        layers: Layers of the network, for the initial values.
    """

    def __init__(self, dim: int, condition_dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.projections = Projections(dim, condition_dim, dim, condition_dim, heads, layers)

    def memory(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of features (B, S, C'), which are the same for all tokens."""
        part = self.projections
        return part.split(part.key(condition)), part.split(part.value(condition))

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """(B, L, C) -> the same shape."""
        part = self.projections
        q, k, v = part.split(part.query(x)), *memory
        return part.merge(F.scaled_dot_product_attention(q, k, v))
