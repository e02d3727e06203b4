"""LFDM's denoiser: a 3D U-Net over sequences of latent flow (LFDM section 3.2; report section 3 of the family)."""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.diffusion.guidance import classifier_free
from vgen.models.lfdm.networks.unet_blocks import (
    AxialAttention,
    PaddingMode,
    ResnetBlock,
    SpatialLinearAttention,
    downsample,
    split_conv,
    upsample,
)
from vgen.nn.embeddings import RelativePositionBias, RotaryEmbedding, SinusoidalEmbedding
from vgen.nn.recompute import recompute

BERT_DIM = 768  # hidden size of bert-base


class Unet3D(Configurable, nn.Module):
    """Predicts the diffusion target of flow (first output channels) and occlusion (last).

    The input is the noisy flow, with the static latent z0 of the source image beside it: `channels` counts both.

    Args:
        dim: Base width.
        cond_dim: Size of the condition embedding; None for an unconditional network.
        out_grid_dim: Output channels of the flow head.
        out_conf_dim: Output channels of the occlusion head.
        dim_mults: Width of each level as a multiple of `dim`; as many levels.
        channels: Input channels: noisy flow and occlusion, and z0.
        attn_heads: Heads of every attention.
        attn_dim_head: Channels of a temporal attention head; the spatial heads always have 32.
        use_bert_text_cond: The condition is a BERT embedding: `cond_dim` becomes 768.
        init_dim: Width of the first convolution; the official network works with `dim` only.
        init_kernel_size: Odd side of the first kernel.
        use_sparse_linear_attn: Linear spatial attention at every level.
        resnet_groups: GroupNorm groups.
        use_final_activation: Accepted for official configurations: the official class stores it and applies nothing.
        learn_null_cond: Learned embedding of "no condition" (NATOPS) instead of zeros.
        use_deconv: Transposed convolutions (MUG, MHAD) or nearest up-sampling and a convolution (NATOPS).
        padding_mode: Of that convolution.
        checkpointing: Compute activations of blocks again in the backward pass instead of keeping them: less memory,
            more time, the same gradients.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int | None = None,
        out_grid_dim: int = 2,
        out_conf_dim: int = 1,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        channels: int = 3,
        attn_heads: int = 8,
        attn_dim_head: int = 32,
        use_bert_text_cond: bool = False,
        init_dim: int | None = None,
        init_kernel_size: int = 7,
        use_sparse_linear_attn: bool = True,
        resnet_groups: int = 8,
        use_final_activation: bool = False,
        learn_null_cond: bool = False,
        use_deconv: bool = True,
        padding_mode: PaddingMode = "zeros",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if init_dim not in (None, dim):
            raise ValueError(f"init_dim {init_dim} != dim {dim}: the heads read 2 x dim channels")
        if init_kernel_size % 2 == 0:
            raise ValueError(f"init_kernel_size must be odd, got {init_kernel_size}")
        self.channels, self.checkpointing = channels, checkpointing
        self.out_channels = out_grid_dim + out_conf_dim
        cond_dim = BERT_DIM if use_bert_text_cond else cond_dim
        self.has_cond = cond_dim is not None
        self.cond_dim = cond_dim or 0

        self.rotary_emb = RotaryEmbedding(min(32, attn_dim_head))
        self.time_rel_pos_bias = RelativePositionBias(attn_heads, num_buckets=32, max_distance=32)
        padding = init_kernel_size // 2
        self.init_conv = nn.Conv3d(
            channels, dim, (1, init_kernel_size, init_kernel_size), padding=(0, padding, padding)
        )

        def temporal(width: int) -> AxialAttention:
            return AxialAttention(width, attn_heads, attn_dim_head, axis="time")

        def spatial(width: int) -> nn.Module:
            return SpatialLinearAttention(width, attn_heads) if use_sparse_linear_attn else nn.Identity()

        self.init_temporal_attn = temporal(dim)
        time_dim = dim * 4
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.null_cond_emb: Tensor | None = None
        if self.has_cond and learn_null_cond:
            self.null_cond_emb = nn.Parameter(torch.randn(1, self.cond_dim))
        elif self.has_cond:
            del self.null_cond_emb
            self.register_buffer("null_cond_emb", torch.zeros(1, self.cond_dim), persistent=False)

        def residual(width: int, width_out: int) -> ResnetBlock:
            return ResnetBlock(width, width_out, resnet_groups, cond_dim=time_dim + self.cond_dim)

        widths = [dim, *(dim * mult for mult in dim_mults)]
        levels = list(pairwise(widths))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (fine, coarse) in enumerate(levels):
            last = downsample(coarse) if i < len(levels) - 1 else nn.Identity()
            blocks = [residual(fine, coarse), residual(coarse, coarse), spatial(coarse), temporal(coarse), last]
            self.downs.append(nn.ModuleList(blocks))

        middle = widths[-1]
        self.mid_block1 = residual(middle, middle)
        self.mid_spatial_attn = AxialAttention(middle, attn_heads, axis="space")
        self.mid_temporal_attn = temporal(middle)
        self.mid_block2 = residual(middle, middle)

        for i, (fine, coarse) in enumerate(reversed(levels)):
            last = upsample(fine, use_deconv, padding_mode) if i < len(levels) - 1 else nn.Identity()
            blocks = [residual(coarse * 2, fine), residual(fine, fine), spatial(fine), temporal(fine), last]
            self.ups.append(nn.ModuleList(blocks))

        self.final_conv = nn.Sequential(ResnetBlock(dim * 2, dim, resnet_groups), nn.Conv3d(dim, out_grid_dim, 1))
        self.occlusion_map = nn.Sequential(ResnetBlock(dim * 2, dim, resnet_groups), nn.Conv3d(dim, out_conf_dim, 1))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None = None,
        fea: Tensor | None = None,
        null_mask: Tensor | None = None,
    ) -> Tensor:
        """Predicts the target of each sample.

        Args:
            x: Noisy flow and occlusion (B, C, T, h, w); with `fea` None all input channels.
            time: (B,) diffusion timesteps 0..999.
            cond: (B, cond_dim), or None for an unconditional network.
            fea: z0 (B, channels - C, h, w), the same for all frames.
            null_mask: (B,) bool, True where the null embedding replaces the condition.

        Returns:
            (B, out_grid_dim + out_conf_dim, T, h, w).
        """
        bias, rotary = self._positions(x.shape[2])
        stem, features = self._stem(x, fea, bias, rotary)
        return self._trunk(stem, features, self._condition(time, cond, null_mask), bias, rotary)

    def forward_with_guidance(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None = None,
        fea: Tensor | None = None,
        scale: float = 1.0,
        null_mask: Tensor | None = None,
    ) -> Tensor:
        """Classifier-free guidance, null + scale (cond - null), in one call of doubled batch.

        The first convolution and attention do not see the condition and run once. Scale 1 is the conditional network
        alone and scale 0 the null one.

        Args:
            x: As in `forward`.
            time: As in `forward`.
            cond: As in `forward`.
            fea: As in `forward`.
            scale: Guidance scale.
            null_mask: Samples without a condition; guidance leaves them unchanged.

        Returns:
            As `forward`.
        """
        if not self.has_cond or scale == 1:
            return self.forward(x, time, cond, fea, null_mask)
        everything = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if scale == 0:
            return self.forward(x, time, cond, fea, everything)
        bias, rotary = self._positions(x.shape[2])
        pair = [tensor.repeat(2, 1, 1, 1, 1) for tensor in self._stem(x, fea, bias, rotary)]
        conditions = torch.cat((self._condition(time, cond, null_mask), self._condition(time, cond, everything)))
        with_cond, without = self._trunk(pair[0], pair[1], conditions, bias, rotary).chunk(2)
        return classifier_free(with_cond, without, scale)

    def _positions(self, frames: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Position bias and rotary angles, shared by all temporal attentions of a forward."""
        return self.time_rel_pos_bias(frames), self.rotary_emb(frames)

    def _stem(
        self, x: Tensor, fea: Tensor | None, bias: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The first features and, after their temporal attention, the input of the first level."""
        dtype = self.init_conv.weight.dtype
        x = x.to(dtype)
        first = self.init_conv(x) if fea is None else split_conv(self.init_conv, x, fea.to(dtype))
        return first, self._run(self.init_temporal_attn, first, bias, rotary)

    def _condition(self, time: Tensor, cond: Tensor | None, null_mask: Tensor | None) -> Tensor:
        """(B, 4 dim + cond_dim) that modulates every residual block."""
        sinusoid, *layers = self.time_mlp
        embedding: Tensor = sinusoid(time).to(self.init_conv.weight.dtype)
        for layer in layers:
            embedding = layer(embedding)
        if not self.has_cond:
            return embedding
        if cond is None:
            raise ValueError(f"this network expects a condition of size {self.cond_dim}")
        if null_mask is not None:
            cond = torch.where(null_mask[:, None], self.null_cond_emb.to(cond.dtype), cond)  # type: ignore[union-attr]
        return torch.cat((embedding, cond.to(embedding.dtype)), dim=-1)

    def _run(self, block: nn.Module, *args: Any) -> Tensor:
        return recompute(block, *args) if self.checkpointing else block(*args)

    def _trunk(
        self, first: Tensor, x: Tensor, condition: Tensor, bias: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> Tensor:
        skips = []
        for level in self.downs:
            block1, block2, spatial, temporal, down = cast(nn.ModuleList, level)
            x = self._run(block2, self._run(block1, x, condition), condition)
            x = self._run(temporal, self._run(spatial, x), bias, rotary)
            skips.append(x)
            x = down(x)
        x = self._run(self.mid_block1, x, condition)
        x = self._run(self.mid_temporal_attn, self._run(self.mid_spatial_attn, x), bias, rotary)
        x = self._run(self.mid_block2, x, condition)
        for level in self.ups:
            block1, block2, spatial, temporal, up = cast(nn.ModuleList, level)
            x = torch.cat((x, skips.pop()), dim=1)
            x = self._run(block2, self._run(block1, x, condition), condition)
            x = up(self._run(temporal, self._run(spatial, x), bias, rotary))
        x = torch.cat((x, first), dim=1)
        return torch.cat((self._run(self.final_conv, x), self._run(self.occlusion_map, x)), dim=1)
