"""VDM's denoiser: the factorised 3D U-Net with the arguments of the public code, and the paper's as switches."""

from vgen.configurable import Configurable
from vgen.nn.unet3d import BERT_DIM, FactorisedUnet3D, Positions, SpatialAttention
from vgen.nn.unet3d_blocks import Modulation, Norm


class Unet3D(Configurable, FactorisedUnet3D):
    """Predicts the diffusion target of a noisy video.

    The arguments up to `use_sparse_linear_attn` are those of video-diffusion-pytorch 0.7.0, whose networks it then is;
    those behind make it the paper's (Ho et al. 2022, section 3 and appendix).

    Args:
        dim: Base width.
        cond_dim: Size of the condition embedding; None for an unconditional network.
        out_dim: Output channels; None: as many as the input has.
        dim_mults: Width of each level as a multiple of `dim`; as many levels.
        channels: Channels of the video, or of its latent.
        attn_heads: Heads of every attention.
        attn_dim_head: Channels of a temporal attention head; spatial heads have 32 unless attention is `full`.
        use_bert_text_cond: The condition is a BERT embedding: `cond_dim` becomes 768.
        init_dim: Width of the first convolution; the public network works with `dim` only.
        init_kernel_size: Odd side of the first kernel.
        use_sparse_linear_attn: False: no spatial attention but in the middle, where `spatial_attention` is linear.
        norm: `rms` (0.7.0) or `group` (0.6.3 and before, and most forks).
        resnet_groups: GroupNorm groups.
        spatial_attention: `linear` (public code), or `full` (paper).
        attention_levels: Levels with attention, 0 the finest. Paper: those of 8, 16 and 32 pixels. None: all, and
            temporal attention in front of the first (public code).
        positions: `t5_rotary` (public code), or `shaw` (paper).
        modulation: `film` (public code), or `add` (paper).
        dropout: In residual blocks; paper: 0.1, 0 for text.
        checkpointing: Compute activations of blocks again in the backward pass instead of keeping them: less memory,
            more time, the same gradients.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int | None = None,
        out_dim: int | None = None,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        channels: int = 3,
        attn_heads: int = 8,
        attn_dim_head: int = 32,
        use_bert_text_cond: bool = False,
        init_dim: int | None = None,
        init_kernel_size: int = 7,
        use_sparse_linear_attn: bool = True,
        norm: Norm = "rms",
        resnet_groups: int = 8,
        spatial_attention: SpatialAttention = "linear",
        attention_levels: tuple[int, ...] | None = None,
        positions: Positions = "t5_rotary",
        modulation: Modulation = "film",
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        if init_dim not in (None, dim):
            raise ValueError(f"init_dim {init_dim} != dim {dim}: the head reads 2 x dim channels")
        super().__init__(
            dim,
            channels,
            {"final_conv": channels if out_dim is None else out_dim},
            dim_mults,
            cond_dim=BERT_DIM if use_bert_text_cond else cond_dim,
            null_condition="learned",
            attn_heads=attn_heads,
            attn_dim_head=attn_dim_head,
            init_kernel_size=init_kernel_size,
            spatial_attention=spatial_attention if use_sparse_linear_attn else "none",
            attention_levels=attention_levels,
            positions=positions,
            norm=norm,
            groups=resnet_groups,
            modulation=modulation,
            dropout=dropout,
            stored_frequencies=True,
            checkpointing=checkpointing,
        )
