"""LFDM's denoiser: a 3D U-Net over sequences of latent flow (LFDM section 3.2; report section 3 of the family)."""

from torch import Tensor

from vgen.configurable import Configurable
from vgen.diffusion.guidance import guided
from vgen.nn.unet3d import BERT_DIM, FactorisedUnet3D
from vgen.nn.unet3d_blocks import PaddingMode


class Unet3D(Configurable, FactorisedUnet3D):
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
        if init_dim not in (None, dim):
            raise ValueError(f"init_dim {init_dim} != dim {dim}: the heads read 2 x dim channels")
        super().__init__(
            dim,
            channels,
            {"final_conv": out_grid_dim, "occlusion_map": out_conf_dim},
            dim_mults,
            cond_dim=BERT_DIM if use_bert_text_cond else cond_dim,
            null_condition="learned" if learn_null_cond else "zeros",
            attn_heads=attn_heads,
            attn_dim_head=attn_dim_head,
            init_kernel_size=init_kernel_size,
            spatial_attention="linear" if use_sparse_linear_attn else "none",
            groups=resnet_groups,
            early_attention=False,
            use_deconv=use_deconv,
            padding_mode=padding_mode,
            checkpointing=checkpointing,
        )

    def forward_with_guidance(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None = None,
        fea: Tensor | None = None,
        scale: float = 1.0,
        null_mask: Tensor | None = None,
    ) -> Tensor:
        """Classifier-free guidance; see `vgen.diffusion.guidance.guided`.

        Args:
            x: Noisy flow and occlusion (B, C, T, h, w).
            time: (B,) diffusion timesteps.
            cond: (B, cond_dim).
            fea: z0 (B, channels - C, h, w), the same for all frames.
            scale: Guidance scale.
            null_mask: Samples without a condition; guidance leaves them unchanged.

        Returns:
            (B, out_grid_dim + out_conf_dim, T, h, w).
        """
        return guided(self, x, time, cond, scale, null_mask=null_mask, static=fea)
