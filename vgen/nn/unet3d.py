"""The 3D U-Net with factorised space-time attention of VDM (Ho et al. 2022, section 3), in its public form.

No official code exists; the form that others build on (LFDM among them) is lucidrains' video-diffusion-pytorch. What
the paper has and that code has not is a switch here.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vgen.nn.attention import separate_images
from vgen.nn.embeddings import RelativePositionBias, RotaryEmbedding, SinusoidalEmbedding
from vgen.nn.recompute import recompute
from vgen.nn.unet3d_blocks import (
    AxialAttention,
    Modulation,
    Norm,
    PaddingMode,
    ResnetBlock,
    SpatialLinearAttention,
    downsample,
    split_conv,
    upsample,
)

SpatialAttention = Literal["linear", "full", "none"]
Positions = Literal["t5_rotary", "shaw"]
NullCondition = Literal["zeros", "learned"]

BERT_DIM = 768  # hidden size of bert-base, whose embeddings the public code takes as conditions

#: Position bias (heads or 1, T, T) and rotary angles of the frames, shared by all temporal attentions of a forward.
FramePositions = tuple[Tensor | None, tuple[Tensor, Tensor] | None]


class FactorisedUnet3D(nn.Module):
    """Predicts the diffusion target of a noisy video, given its noise level and a condition.

    Convolutions see one frame, spatial attention the pixels of a frame, temporal attention the frames at a pixel.

    Args:
        dim: Base width.
        channels: Input channels.
        outputs: Name and channels of each head; their outputs are concatenated.
        dim_mults: Width of each level as a multiple of `dim`; as many levels.
        cond_dim: Size of the condition; None for an unconditional network.
        null_condition: What stands for "no condition": `zeros`, or a `learned` vector.
        attn_heads: Heads of every attention.
        attn_dim_head: Channels of a temporal attention head, and of a spatial one where that is `full`; the others
            have 32.
        init_kernel_size: Odd side of the first kernel.
        spatial_attention: Of the levels: `linear` (in the public code), `full` softmax (in the paper) or `none`. The
            middle always has full attention.
        attention_levels: Levels with spatial and temporal attention, 0 the finest; None: all, and a temporal
            attention before the first level.
        positions: How temporal attention knows frames apart: T5's buckets and rotary angles (public code), or learned
            embeddings of distances up to 32 frames (`shaw`, in the paper).
        norm: Of the residual blocks: `group` (also the public code up to 0.6.3), `rms` (from 0.7.0 on).
        groups: GroupNorm groups.
        modulation: How noise level and condition enter a residual block (see `ResnetBlock`).
        dropout: In residual blocks.
        early_attention: What the heads see beside the last level: the first features behind their temporal attention
            (public code), or in front of it (LFDM's fork).
        stored_frequencies: The state dict has the rotary frequencies, as that of the public code.
        use_deconv: Up-sample by transposed convolutions, or by nearest up-sampling and a convolution.
        padding_mode: Of that convolution.
        checkpointing: Compute activations of blocks again in the backward pass instead of keeping them: less memory,
            more time, the same gradients.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        outputs: Mapping[str, int],
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        cond_dim: int | None = None,
        null_condition: NullCondition = "learned",
        attn_heads: int = 8,
        attn_dim_head: int = 32,
        init_kernel_size: int = 7,
        spatial_attention: SpatialAttention = "linear",
        attention_levels: tuple[int, ...] | None = None,
        positions: Positions = "t5_rotary",
        norm: Norm = "group",
        groups: int = 8,
        modulation: Modulation = "film",
        dropout: float = 0.0,
        early_attention: bool = True,
        stored_frequencies: bool = False,
        use_deconv: bool = True,
        padding_mode: PaddingMode = "zeros",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if init_kernel_size % 2 == 0:
            raise ValueError(f"init_kernel_size must be odd, got {init_kernel_size}")
        self.channels, self.out_channels = channels, sum(outputs.values())
        self.heads, self.checkpointing, self.random = tuple(outputs), checkpointing, dropout > 0
        self.has_cond, self.cond_dim = cond_dim is not None, cond_dim or 0
        self.early_attention = early_attention
        self.side_multiple = 2 ** (len(dim_mults) - 1)
        widths = [dim, *(dim * mult for mult in dim_mults)]
        levels = list(pairwise(widths))
        with_attention = range(len(levels)) if attention_levels is None else attention_levels
        full, shaw = spatial_attention == "full", positions == "shaw"

        self.rotary_emb = None if shaw else RotaryEmbedding(min(32, attn_dim_head), stored_frequencies)
        self.time_rel_pos_bias = None if shaw else RelativePositionBias(attn_heads, num_buckets=32, max_distance=32)
        padding = init_kernel_size // 2
        self.init_conv = nn.Conv3d(
            channels, dim, (1, init_kernel_size, init_kernel_size), padding=(0, padding, padding)
        )

        def temporal(width: int, wanted: bool = True) -> nn.Module | None:
            distance = 32 if shaw else None
            return AxialAttention(width, attn_heads, attn_dim_head, "time", distance) if wanted else None

        def spatial(width: int, wanted: bool) -> nn.Module:
            if not wanted or spatial_attention == "none":
                return nn.Identity()
            if full:
                return AxialAttention(width, attn_heads, attn_dim_head, axis="space")
            return SpatialLinearAttention(width, attn_heads)

        self.init_temporal_attn = temporal(dim, attention_levels is None)
        time_dim = dim * 4
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.null_cond_emb: Tensor | None = None
        if self.has_cond and null_condition == "learned":
            self.null_cond_emb = nn.Parameter(torch.randn(1, self.cond_dim))
        elif self.has_cond:
            del self.null_cond_emb
            self.register_buffer("null_cond_emb", torch.zeros(1, self.cond_dim), persistent=False)

        def residual(width: int, width_out: int, conditional: bool = True) -> ResnetBlock:
            condition = time_dim + self.cond_dim if conditional else None
            return ResnetBlock(width, width_out, groups, condition, norm, modulation, dropout)

        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (fine, coarse) in enumerate(levels):
            attentive = i in with_attention
            last = downsample(coarse) if i < len(levels) - 1 else nn.Identity()
            blocks = [residual(fine, coarse), residual(coarse, coarse), spatial(coarse, attentive)]
            self.downs.append(nn.ModuleList([*blocks, temporal(coarse, attentive) or nn.Identity(), last]))

        middle = widths[-1]
        self.mid_block1 = residual(middle, middle)
        self.mid_spatial_attn = AxialAttention(middle, attn_heads, attn_dim_head if full else 32, axis="space")
        self.mid_temporal_attn = cast(nn.Module, temporal(middle))
        self.mid_block2 = residual(middle, middle)

        for i, (fine, coarse) in reversed(list(enumerate(levels))):
            attentive = i in with_attention
            # the level of the finest skip up-samples nothing
            last = upsample(fine, use_deconv, padding_mode) if i > 0 else nn.Identity()
            blocks = [residual(coarse * 2, fine), residual(fine, fine), spatial(fine, attentive)]
            self.ups.append(nn.ModuleList([*blocks, temporal(fine, attentive) or nn.Identity(), last]))

        for name, width in outputs.items():
            head = nn.Sequential(residual(dim * 2, dim, conditional=False), nn.Conv3d(dim, width, 1))
            self.add_module(name, head)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None = None,
        static: Tensor | None = None,
        null_mask: Tensor | None = None,
        alone: Tensor | None = None,
        images: int = 0,
    ) -> Tensor:
        """Predicts the target of each sample.

        Args:
            x: Noisy video (B, C, T, h, w); without `static` C is all input channels.
            time: (B,) diffusion timesteps, or one for each frame (B, T).
            cond: (B, cond_dim), or one for each frame (B, T, cond_dim); None for an unconditional network.
            static: Features (B, channels - C, h, w) that stand beside every frame.
            null_mask: (B,) bool, or (B, T) where each frame has its condition: True where the null condition
                replaces it.
            alone: (B,) bool: clips whose frames do not see each other (but in the attention before the first level, as
                in the public code's `focus_present_mask`).
            images: The last so many frames are pictures of their own: they see, and are seen by, no other frame
                (Ho et al. 2022, section 3.2).

        Returns:
            (B, sum of the heads' channels, T, h, w).
        """
        positions = self._positions(x.shape[2], images)
        stem, features = self._stem(x, static, positions)
        return self._trunk(stem, features, self._condition(time, cond, null_mask), positions, alone)

    def forward_pair(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor,
        static: Tensor | None = None,
        null_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The output with the condition, and without it, in one call of doubled batch.

        The first convolution and attention do not see the condition and run once. Arguments: as in `forward`.
        """
        everything = torch.ones(len(x), dtype=torch.bool, device=x.device)
        positions = self._positions(x.shape[2])
        stem, features = (part.repeat(2, 1, 1, 1, 1) for part in self._stem(x, static, positions))
        conditions = torch.cat((self._condition(time, cond, null_mask), self._condition(time, cond, everything)))
        with_cond, without = self._trunk(stem, features, conditions, positions, None).chunk(2)
        return with_cond, without

    def _positions(self, frames: int, images: int = 0) -> FramePositions:
        bias = None if self.time_rel_pos_bias is None else self.time_rel_pos_bias(frames)
        if images:
            apart = separate_images(frames, images, self.init_conv.weight.device)
            bias = apart if bias is None else bias + apart
        return bias, None if self.rotary_emb is None else self.rotary_emb(frames)

    def _stem(self, x: Tensor, static: Tensor | None, positions: FramePositions) -> tuple[Tensor, Tensor]:
        """The first features and, after their temporal attention, the input of the first level."""
        dtype = self.init_conv.weight.dtype
        x = x.to(dtype)
        first = self.init_conv(x) if static is None else split_conv(self.init_conv, x, static.to(dtype))
        if self.init_temporal_attn is None:
            return first, first
        x = self._run(self.init_temporal_attn, first, *positions)
        return (x if self.early_attention else first), x

    def _condition(self, time: Tensor, cond: Tensor | None, null_mask: Tensor | None) -> Tensor:
        """What modulates every residual block: (B, 4 dim + cond_dim), or (B, T, ...) for conditions of frames."""
        sinusoid, *layers = self.time_mlp
        embedding: Tensor = sinusoid(time.flatten()).unflatten(0, time.shape).to(self.init_conv.weight.dtype)
        for layer in layers:
            embedding = layer(embedding)
        if not self.has_cond:
            return embedding
        if cond is None:
            raise ValueError(f"this network expects a condition of size {self.cond_dim}")
        if null_mask is not None:
            null = cast(Tensor, self.null_cond_emb).to(cond.dtype)
            mask = null_mask[:, None] if null_mask.ndim < cond.ndim - 1 else null_mask
            cond = torch.where(mask[..., None], null, cond)
        if cond.ndim > embedding.ndim:
            embedding = embedding[:, None].expand(-1, cond.shape[1], -1)
        elif cond.ndim < embedding.ndim:
            cond = cond[:, None].expand(-1, embedding.shape[1], -1)
        return torch.cat((embedding, cond.to(embedding.dtype)), dim=-1)

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        return recompute(block, *args, random=self.random) if self.checkpointing else block(*args)

    def _attend(self, temporal: nn.Module, x: Tensor, positions: FramePositions, alone: Tensor | None) -> Tensor:
        return self._run(temporal, x, *positions, alone) if isinstance(temporal, AxialAttention) else x

    def _trunk(
        self, first: Tensor, x: Tensor, condition: Tensor, positions: FramePositions, alone: Tensor | None
    ) -> Tensor:
        skips = []
        for level in self.downs:
            block1, block2, spatial, temporal, down = cast(nn.ModuleList, level)
            x = self._run(block2, self._run(block1, x, condition), condition)
            x = self._attend(temporal, self._run(spatial, x), positions, alone)
            skips.append(x)
            x = down(x)
        x = self._run(self.mid_block1, x, condition)
        x = self._attend(self.mid_temporal_attn, self._run(self.mid_spatial_attn, x), positions, alone)
        x = self._run(self.mid_block2, x, condition)
        for level in self.ups:
            block1, block2, spatial, temporal, up = cast(nn.ModuleList, level)
            x = torch.cat((x, skips.pop()), dim=1)
            x = self._run(block2, self._run(block1, x, condition), condition)
            x = up(self._attend(temporal, self._run(spatial, x), positions, alone))
        x = torch.cat((x, first), dim=1)
        return torch.cat([self._run(self.get_submodule(name), x) for name in self.heads], dim=1)
