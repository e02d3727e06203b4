"""VideoGPT's prior: a transformer over the codes of a clip in the order time, height, width (section 3.2)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.models.videogpt.networks.attention import (
    AttentionType,
    BlockLayout,
    CausalAttention,
    CrossAttention,
    KeyValues,
    Shape,
)
from vgen.models.videogpt.networks.resnet import FrameResNet
from vgen.nn.init import zeroed
from vgen.nn.precision import at_least_fp32

_EPS = 1e-5
_SLOPE = 1.702
Memory = tuple[Tensor, Tensor]


class Norm(nn.Module):
    """LayerNorm whose gain and bias may depend on the class; eps is added to 1/sqrt(var), not to var.

    Args:
        dim: Channels.
        classes: Number of classes, or 0.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        if classes:
            self.gain = nn.Parameter(torch.full((classes, dim), classes**-0.5))
            self.bias = nn.Parameter(torch.zeros(classes, dim))
        else:
            self.gain, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """(B, L, C) -> the same shape, for classes (B,)."""
        wide = at_least_fp32(x)
        variance, mean = torch.var_mean(wide, -1, correction=0, keepdim=True)
        gain, bias = self._of(label)
        return ((wide - mean) * (_EPS + variance.rsqrt()) * gain + bias).to(x.dtype)

    def _of(self, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gain and bias, (C,) or, for classes, (B, 1, C)."""
        if label is None or not self.classes:
            return self.gain, self.bias
        return 1 + self.gain[label][:, None], self.bias[label][:, None]


class GridPositions(nn.Module):
    """Embeddings of the places of a grid: one table for each axis, side by side in the channels.

    Args:
        shape: Sides of the grid.
        dim: Channels, a multiple of the number of axes.
    """

    def __init__(self, shape: Shape, dim: int) -> None:
        super().__init__()
        if dim % len(shape):
            raise UserError(f"{dim} channels are no multiple of {len(shape)} axes", "network.hidden_dim")
        self.shape = shape
        self.axes = nn.ParameterList(nn.Parameter(torch.randn(side, dim // len(shape)) * 0.01) for side in shape)

    def forward(self) -> Tensor:
        """(L, C), in the order of the axes."""
        tables = []
        for axis, table in enumerate(self.axes):
            view = [1] * len(self.shape)
            view[axis] = self.shape[axis]
            tables.append(table.view(*view, -1).expand(*self.shape, -1))
        return torch.cat(tables, -1).flatten(0, -2)


class TransformerBlock(nn.Module):
    """Causal attention, attention to given frames where there are some, and a feed-forward layer.

    Args:
        dim: Channels.
        heads: Attention heads.
        layers: Layers of the network.
        dropout: Of each branch.
        attention_dropout: Of attention weights.
        classes: Number of classes, or 0.
        condition_dim: Channels of the features of given frames, or 0.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        dropout: float,
        attention_dropout: float,
        classes: int,
        condition_dim: int,
    ) -> None:
        super().__init__()
        self.norm = Norm(dim, classes)
        self.attention = CausalAttention(dim, heads, layers, attention_dropout)
        self.condition_norm = Norm(dim, classes) if condition_dim else None
        self.condition = CrossAttention(dim, condition_dim, heads, layers) if condition_dim else None
        self.mlp_norm = Norm(dim, classes)
        self.expand, self.contract = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, label: Tensor | None, features: Tensor | None, layout: BlockLayout | None) -> Tensor:
        """(B, L, C) -> the same shape."""
        x = x + self.dropout(self.attention(self.norm(x, label), layout))
        return self._rest(x, label, self.memory(features))

    def memory(self, features: Tensor | None) -> Memory | None:
        """Keys and values of given frames' features; None where none are given."""
        return None if self.condition is None or features is None else self.condition.memory(features)

    def step(
        self,
        x: Tensor,
        position: int,
        cache: KeyValues,
        label: Tensor | None,
        memory: Memory | None,
        seen: Tensor | None,
    ) -> Tensor:
        """One token (B, 1, C)."""
        x = x + self.attention.step(self.norm(x, label), position, cache, seen)
        return self._rest(x, label, memory)

    def _rest(self, x: Tensor, label: Tensor | None, memory: Memory | None) -> Tensor:
        if self.condition is not None and self.condition_norm is not None and memory is not None:
            x = x + self.dropout(self.condition(self.condition_norm(x, label), memory))
        inner = self.expand(self.mlp_norm(x, label))
        return x + self.dropout(self.contract(inner * torch.sigmoid(_SLOPE * inner)))


class CodeTransformer(Configurable, nn.Module):
    """p(code | the codes before it, class or first frames).

    What a token enters with is the codebook's vector of the code before it. Grid, codebook and classes are those of the
    first stage and of the data: `prepare` makes the layers.

    Args:
        hidden_dim: Channels, a multiple of 3 and of the heads.
        heads: Attention heads.
        layers: Transformer blocks.
        dropout: Of each branch.
        attention: `full`, or `sparse` as in the released priors (see `strided_layout`).
        attention_dropout: Of attention weights, where attention is full.
        block: Tokens of a block of sparse attention.
        local_blocks: Its earlier blocks that are near.
        class_conditional: Whether norms depend on the class.
        condition_frames: First frames that are given; 0: none.
        condition_widths: Channels of the ResNet that reads them; the last a multiple of 3 and of the heads.
        checkpointing: Compute activations again in the backward pass: less memory, more time, the same gradients.
    """

    def __init__(
        self,
        hidden_dim: int = 576,
        heads: int = 4,
        layers: int = 8,
        dropout: float = 0.2,
        attention: AttentionType = "full",
        attention_dropout: float = 0.3,
        block: int = 32,
        local_blocks: int = 4,
        class_conditional: bool = False,
        condition_frames: int = 0,
        condition_widths: tuple[int, int, int, int] = (64, 128, 256, 240),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if hidden_dim % heads or (condition_frames and condition_widths[-1] % heads):
            raise UserError(f"{heads} heads do not divide the channels", "network.heads")
        self.hidden_dim, self.heads, self.depth = hidden_dim, heads, layers
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.attention: AttentionType = attention
        self.block, self.local_blocks = block, local_blocks
        self.class_conditional, self.condition_frames = class_conditional, condition_frames
        self.condition_widths, self.checkpointing = condition_widths, checkpointing

    def prepare(
        self,
        shape: Shape,
        codes: int,
        embedding_dim: int,
        classes: int = 0,
        channels: int = 3,
        size: tuple[int, int] = (64, 64),
    ) -> None:
        """Makes the layers; called once, before weights are loaded.

        Args:
            shape: Grid of codes (t, h, w).
            codes: Number of codes.
            embedding_dim: Channels of a code.
            classes: Number of classes, of which a class-conditional network needs some.
            channels: Colour channels of given frames.
            size: Their height and width.

        Raises:
            UserError: There are no classes, or given frames have sides that are no multiples of 4.
        """
        if self.class_conditional and not classes:
            raise UserError("the data has no classes", "network.class_conditional", "false trains without")
        self.shape: Shape = shape
        self.length = shape[0] * shape[1] * shape[2]
        sizes = (self.dropout, self.attention_dropout, classes if self.class_conditional else 0)
        width = self.condition_widths[-1] if self.condition_frames else 0
        self.embed = nn.Linear(embedding_dim, self.hidden_dim, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.start = nn.Parameter(torch.randn(self.hidden_dim) * 0.02)
        self.positions = GridPositions(shape, self.hidden_dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(self.hidden_dim, self.heads, self.depth, *sizes, width) for _ in range(self.depth)
        )
        self.norm = Norm(self.hidden_dim, sizes[2])
        self.logits = zeroed(nn.Linear(self.hidden_dim, codes, bias=False))
        self.layout = BlockLayout(shape, self.block, self.local_blocks) if self.attention == "sparse" else None
        self.resnet: FrameResNet | None = None
        if self.condition_frames:
            if size[0] % 4 or size[1] % 4:
                raise UserError(f"given frames of {size[0]}x{size[1]} have no quarter", "network.condition_frames")
            self.resnet = FrameResNet(channels, self.condition_widths)
            self.condition_positions = GridPositions((self.condition_frames, size[0] // 4, size[1] // 4), width)

    def features(self, frames: Tensor | None) -> Tensor | None:
        """Features (B, S, C') of given frames (B, C, n, H, W) in [-0.5, 0.5]; None where none are given."""
        if self.resnet is None:
            return None
        assert frames is not None, "the network is given frames"
        return self.resnet(frames).flatten(1, 3) + self.condition_positions()  # type: ignore[no-any-return]

    def forward(self, embeddings: Tensor, label: Tensor | None = None, frames: Tensor | None = None) -> Tensor:
        """Logits of every code given those before it.

        Args:
            embeddings: The codebook's vectors of the codes themselves, (B, t, h, w, embedding_dim).
            label: Classes (B,).
            frames: Given frames (B, C, n, H, W) in [-0.5, 0.5].

        Returns:
            (B, t, h, w, codes).
        """
        x = self.hidden(self.embed(embeddings.flatten(1, 3)), label, self.features(frames))
        return self.logits(self.norm(x, label)).unflatten(1, self.shape)  # type: ignore[no-any-return]

    def hidden(self, embedded: Tensor, label: Tensor | None = None, features: Tensor | None = None) -> Tensor:
        """What the blocks make of tokens (B, L', C), the first of the grid; each is the input of the next one."""
        start = self.start.to(embedded.dtype).expand(len(embedded), 1, -1)
        x = torch.cat((start, embedded[:, :-1]), 1) + self.positions()[: embedded.shape[1]].to(embedded.dtype)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, label, features, self.layout, use_reentrant=False)
            else:
                x = block(x, label, features, self.layout)
        return x

    def steps(
        self, n: int, label: Tensor | None = None, frames: Tensor | None = None, cached: bool = True
    ) -> "Decoding | Recomputing":
        """Logits token by token, for n clips; keys and values are kept, or (not cached) computed anew."""
        return Decoding(self, n, label, self.features(frames)) if cached else Recomputing(self, n, label, frames)


class Recomputing:
    """Logits token by token, each computed from all tokens before it anew: what `Decoding` spares, and must equal.

    Args:
        network: The prior.
        n: Number of clips.
        label: Classes (n,).
        frames: Given frames.
    """

    def __init__(self, network: CodeTransformer, n: int, label: Tensor | None, frames: Tensor | None) -> None:
        self.network, self.label, self.frames, self.position = network, label, frames, 0
        self._tokens = network.start.new_zeros(n, network.length, network.hidden_dim)

    def __iter__(self) -> Iterator[Tensor]:
        """See `Decoding`."""
        network = self.network
        for self.position in range(network.length):
            tokens = self._tokens[:, : self.position + 1]
            x = network.hidden(tokens, self.label, network.features(self.frames))[:, -1:]
            yield network.logits(network.norm(x, self.label))[:, 0]

    def put(self, embeddings: Tensor) -> None:
        """See `Decoding`."""
        self._tokens[:, self.position] = self.network.embed(embeddings)


class Decoding:
    """The state of clips whose codes are drawn one after the other.

    Args:
        network: The prior.
        n: Number of clips.
        label: Classes (n,).
        features: Features of given frames (n, S, C').
    """

    def __init__(self, network: CodeTransformer, n: int, label: Tensor | None, features: Tensor | None) -> None:
        self.network, self.label, self.position = network, label, 0
        self.caches = [KeyValues(network.length) for _ in network.blocks]
        self.memories: list[Memory | None] = [
            block.memory(features)  # type: ignore[operator]
            for block in network.blocks
        ]
        self._positions = network.positions()
        self._last = network.start.expand(n, 1, -1)

    def __iter__(self) -> Iterator[Tensor]:
        """Logits (n, codes) of each code in turn; `put` tells which it became."""
        network = self.network
        for self.position in range(network.length):
            x = self._last + self._positions[self.position].to(self._last.dtype)
            seen = None if network.layout is None else network.layout.keys_of(self.position, x.device)
            for block, cache, memory in zip(network.blocks, self.caches, self.memories, strict=True):
                x = block.step(x, self.position, cache, self.label, memory, seen)  # type: ignore[operator]
            yield network.logits(network.norm(x, self.label))[:, 0]

    def put(self, embeddings: Tensor) -> None:
        """Tells the codebook's vectors (n, embedding_dim) of the codes that were drawn."""
        self._last = self.network.embed(embeddings[:, None])


def cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean cross entropy of codes (B, t, h, w) under logits (B, t, h, w, codes), in nats."""
    return F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten())
