"""The 3D U-Net of LVDM (He et al. 2022, section 3.2; released code), with the release's module names."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.models.video_ldm.networks.unet_blocks import Downsample, ResBlock, SpaceTimeAttention, Upsample
from vgen.nn.attention import separate_images
from vgen.nn.embeddings import cosine_embedding
from vgen.nn.init import zeroed
from vgen.nn.recompute import recompute


class LVDMUnet(Configurable, nn.Module):
    """Predicts the noise of a latent video: ADM's U-Net with attention over space, then over time.

    Args:
        in_channels: Channels of the latent.
        model_channels: Base width, a multiple of 32.
        out_channels: Output channels.
        num_res_blocks: Residual blocks of each level on the way down; one more on the way up.
        attention_resolutions: Factors of down-sampling at which there is attention; the middle always has it.
        channel_mult: Width of each level as a multiple of the base.
        dropout: In residual blocks.
        num_heads: Attention heads, where `num_head_channels` does not say it.
        num_head_channels: Channels of a head; -1: `num_heads` heads.
        conv_resample: Change the resolution by convolutions instead of pooling and repetition.
        resblock_updown: Change the resolution in residual blocks.
        use_scale_shift_norm: The noise level scales and shifts features (FiLM) instead of being added.
        kernel_size_t: Frames that a convolution sees; 1 in the release.
        padding_t: Its padding in time.
        temporal_length: Distance of frames from which on relative positions are the same.
        use_relative_position: Embeddings of relative positions in temporal attention.
        nonlinearity_type: `silu` or `leaky_relu`.
        checkpointing: Compute activations of blocks again in the backward pass instead of keeping them.
    """

    has_cond = False
    cond_dim = 0

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: tuple[int, ...],
        channel_mult: tuple[int, ...] = (1, 2, 4, 8),
        dropout: float = 0.0,
        num_heads: int = -1,
        num_head_channels: int = -1,
        conv_resample: bool = True,
        resblock_updown: bool = False,
        use_scale_shift_norm: bool = False,
        kernel_size_t: int = 1,
        padding_t: int = 1,
        temporal_length: int | None = None,
        use_relative_position: bool = False,
        nonlinearity_type: Literal["silu", "leaky_relu"] = "silu",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if num_heads == num_head_channels == -1:
            raise ValueError("one of num_heads and num_head_channels is needed")
        if use_relative_position and temporal_length is None:
            raise ValueError("relative positions need a temporal_length")
        self.channels, self.out_channels = in_channels, out_channels
        self.model_channels = model_channels
        self.side_multiple = 2 ** (len(channel_mult) - 1)
        self.checkpointing, self.random = checkpointing, dropout > 0
        kernel, padding = (kernel_size_t, 3, 3), (padding_t, 1, 1)
        time_dim = model_channels * 4

        def activation() -> nn.Module:
            return nn.SiLU() if nonlinearity_type == "silu" else nn.LeakyReLU()

        def residual(width: int, width_out: int, resample: Literal["down", "up"] | None = None) -> ResBlock:
            film = use_scale_shift_norm
            return ResBlock(width, width_out, time_dim, dropout, film, kernel, padding, activation, resample)

        def attention(width: int) -> SpaceTimeAttention:
            heads = num_heads if num_head_channels == -1 else width // num_head_channels
            return SpaceTimeAttention(width, heads, temporal_length if use_relative_position else None)

        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, time_dim), activation(), nn.Linear(time_dim, time_dim)
        )
        self.input_blocks = nn.ModuleList(
            [nn.ModuleList([nn.Conv3d(in_channels, model_channels, kernel, padding=padding)])]
        )
        widths, width, scale = [model_channels], model_channels, 1
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [residual(width, mult * model_channels)]
                width = mult * model_channels
                if scale in attention_resolutions:
                    layers.append(attention(width))
                self.input_blocks.append(nn.ModuleList(layers))
                widths.append(width)
            if level != len(channel_mult) - 1:
                smaller = Downsample(width, conv_resample, kernel, padding)
                self.input_blocks.append(
                    nn.ModuleList([residual(width, width, "down") if resblock_updown else smaller])
                )
                widths.append(width)
                scale *= 2
        self.middle_block = nn.ModuleList([residual(width, width), attention(width), residual(width, width)])
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                layers = [residual(width + widths.pop(), mult * model_channels)]
                width = mult * model_channels
                if scale in attention_resolutions:
                    layers.append(attention(width))
                if level and i == num_res_blocks:
                    larger = Upsample(width, conv_resample, kernel, padding)
                    layers.append(residual(width, width, "up") if resblock_updown else larger)
                    scale //= 2
                self.output_blocks.append(nn.ModuleList(layers))
        last = zeroed(nn.Conv3d(model_channels, out_channels, kernel, padding=padding))
        self.out = nn.Sequential(nn.GroupNorm(32, width), activation(), last)

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, images: int = 0, **inputs: Any) -> Tensor:
        """Predicts the target of each sample.

        Args:
            x: Noisy latents (B, C, T, h, w).
            time: (B,) diffusion timesteps.
            cond: Not taken by this network.
            images: The last so many frames are pictures of their own, which see no other frame.
            inputs: What other denoisers take; none may be given.

        Returns:
            (B, out_channels, T, h, w).
        """
        if cond is not None or any(value is not None for value in inputs.values()):
            raise ValueError("LVDM's U-Net takes no condition")
        dtype = next(self.time_embed.parameters()).dtype
        embedding = self.time_embed(cosine_embedding(time, self.model_channels).to(dtype))
        bias = separate_images(x.shape[2], images, x.device) if images else None
        x = x.to(dtype)
        skips = []
        for block in self.input_blocks:
            x = self._run(cast(nn.ModuleList, block), x, embedding, bias)
            skips.append(x)
        x = self._run(self.middle_block, x, embedding, bias)
        for block in self.output_blocks:
            x = self._run(cast(nn.ModuleList, block), torch.cat((x, skips.pop()), dim=1), embedding, bias)
        return self.out(x)

    def _run(self, layers: nn.ModuleList, x: Tensor, embedding: Tensor, bias: Tensor | None) -> Tensor:
        for layer in layers:
            if isinstance(layer, ResBlock):
                args: tuple[Any, ...] = (x, embedding)
            else:
                args = (x, bias) if isinstance(layer, SpaceTimeAttention) else (x,)
            costly = self.checkpointing and isinstance(layer, (ResBlock, SpaceTimeAttention))
            x = recompute(layer, *args, random=self.random) if costly else layer(*args)
        return x
