"""PVDM's denoiser: one 2D U-Net for the three planes, with attention across them after every block (section 3.2)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.models.pvdm.networks.unet_blocks import (
    CrossPlaneAttention,
    PlaneAttention,
    Resample,
    ResBlock,
)
from vgen.models.pvdm.planes import PLANES
from vgen.nn.embeddings import cosine_embedding
from vgen.nn.init import zeroed


class UNetBlock(nn.Module):
    """Layers that work on each plane by itself, then attention across the planes."""

    def __init__(self, layers: list[nn.Module], across: CrossPlaneAttention | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.across = across

    def forward(self, groups: list[Tensor], embedding: Tensor) -> list[Tensor]:
        """Planes of equal shape stacked in the batch, each (n B, C, a, b)."""
        for layer in self.layers:
            groups = layer(groups, embedding)
        return groups if self.across is None else self.across(groups, embedding)


class PlaneConv(nn.Conv2d):
    """A convolution of kernel 3 of every plane."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, groups: list[Tensor], embedding: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Each (N, inputs, a, b); the embedding is not used."""
        return [super(PlaneConv, self).forward(x) for x in groups]


class PlaneUNet(Configurable, nn.Module):
    """The U-Net of guided diffusion on three planes; a condition latent is concatenated to the noisy one.

    The defaults are PVDM-L, 528,273,412 parameters; PVDM-S has `model_channels` 128, 132,163,588. Planes of equal shape
    (of square frames: yt and xt) go through every layer in one batch, which changes no number: all statistics are those
    of one plane of one clip. Sides must be divisible by 2^(levels - 1), and nothing else depends on them.

    Args:
        in_channels: Channels of a plane.
        out_channels: Channels of the output.
        model_channels: Base width.
        num_res_blocks: Residual blocks of a level.
        attention_resolutions: Down-sampling factors of the levels with attention within planes; must contain 1.
        channel_mult: Width of each level in base widths.
        num_heads: Attention heads.
        num_head_channels: Channels of a head, instead of their number.
        use_scale_shift_norm: See `ResBlock`.
        resblock_updown: Resample in residual blocks; otherwise by a convolution or, without `conv_resample`, by the
            mean and by repetition.
        conv_resample: See `resblock_updown`.
        use_new_attention_order: See `SelfAttention`, whose `head_major` it is the opposite of.
        norm_groups: GroupNorm groups; 32 in all published networks.
        conditional: Takes a condition latent.
        checkpointing: Compute activations of attention again in the backward pass; the release always does.
        plane_embedding: Add a learned vector to each plane behind the first convolution. The release has none: where yt
            and xt have one shape, it cannot tell them apart, and swapped samples are as likely as right ones.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        model_channels: int = 256,
        num_res_blocks: int = 2,
        attention_resolutions: tuple[int, ...] = (4, 2, 1),
        channel_mult: tuple[int, ...] = (1, 2, 4, 4),
        num_heads: int = 8,
        num_head_channels: int | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        conv_resample: bool = True,
        use_new_attention_order: bool = False,
        norm_groups: int = 32,
        conditional: bool = True,
        checkpointing: bool = False,
        plane_embedding: bool = False,
    ) -> None:
        super().__init__()
        for mult in channel_mult:
            for name, number in (("norm_groups", norm_groups), ("num_heads", num_head_channels or num_heads)):
                if mult * model_channels % number:
                    what = f"a level of {mult * model_channels} channels cannot be divided by {number}"
                    raise UserError(what, f"denoiser.{name}")
        self.in_channels, self.out_channels, self.model_channels = in_channels, out_channels, model_channels
        self.conditional, self.levels = conditional, len(channel_mult)
        width = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, width), nn.SiLU(), nn.Linear(width, width))

        def residual(inputs: int, outputs: int) -> ResBlock:
            return ResBlock(inputs, width, outputs, norm_groups, use_scale_shift_norm)

        def resampling(channels: int, way: str) -> nn.Module:
            if resblock_updown:
                return ResBlock(channels, width, channels, norm_groups, use_scale_shift_norm, way)  # type: ignore[arg-type]
            return Resample(channels, way, conv_resample)  # type: ignore[arg-type]

        def attention(channels: int) -> tuple[int, int, int, bool, bool]:
            heads = channels // num_head_channels if num_head_channels else num_heads
            return channels, heads, norm_groups, not use_new_attention_order, checkpointing

        channels, skips = model_channels, [model_channels]
        planes = in_channels * (2 if conditional else 1)
        self.input_blocks = nn.ModuleList([UNetBlock([PlaneConv(planes, channels)], None)])
        self.plane_embed = nn.Parameter(torch.zeros(len(PLANES), channels)) if plane_embedding else None
        for level, mult in enumerate(channel_mult):
            within = 2**level in attention_resolutions
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [residual(channels, mult * model_channels)]
                channels = mult * model_channels
                layers += [PlaneAttention(*attention(channels))] if within else []
                self.input_blocks.append(UNetBlock(layers, CrossPlaneAttention(*attention(channels))))
                skips.append(channels)
            if level + 1 < self.levels:
                down = resampling(channels, "down")
                self.input_blocks.append(UNetBlock([down], CrossPlaneAttention(*attention(channels))))
                skips.append(channels)

        layers = [residual(channels, channels), PlaneAttention(*attention(channels)), residual(channels, channels)]
        self.middle_block = UNetBlock(layers, CrossPlaneAttention(*attention(channels)))

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            within = 2**level in attention_resolutions
            for index in range(num_res_blocks + 1):
                layers = [residual(channels + skips.pop(), mult * model_channels)]
                channels = mult * model_channels
                layers += [PlaneAttention(*attention(channels))] if within else []
                layers += [resampling(channels, "up")] if level and index == num_res_blocks else []
                self.output_blocks.append(UNetBlock(layers, CrossPlaneAttention(*attention(channels))))

        self.out_norm = nn.GroupNorm(norm_groups, channels)
        self.out_conv = zeroed(nn.Conv2d(channels, out_channels, 3, padding=1))

    def check_sides(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Refuses planes that cannot be halved as often as the network does.

        Raises:
            UserError: Names the plane and a number of levels that would do.
        """
        for name, sides in shapes.items():
            for side in sides:
                if side % 2 ** (self.levels - 1):
                    most = (side & -side).bit_length()
                    what = f"a side of {side} of plane {name} cannot be halved {self.levels - 1} times"
                    hint = f"use a channel_mult of at most {most} levels, or another number of frames or data size"
                    raise UserError(what, "denoiser.channel_mult", hint)

    def forward(
        self, planes: Mapping[str, Tensor], time: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predicts for noisy planes.

        Args:
            planes: xy (B, c, H', W'), yt (B, c, T, W'), xt (B, c, T, H').
            time: (B,) diffusion timesteps.
            condition: Planes of the clip before; None: there is none (zeros). Not for unconditional networks.

        Returns:
            Planes of `out_channels` channels.
        """
        if self.conditional:
            planes = {
                name: torch.cat((x, torch.zeros_like(x) if condition is None else condition[name].to(x.dtype)), dim=1)
                for name, x in planes.items()
            }
        names = _equal_shapes(planes)
        groups = [torch.cat([planes[name] for name in group]) for group in names]
        embedding = F.silu(self.time_embed(cosine_embedding(time, self.model_channels).to(groups[0].dtype)))
        first, *others = self.input_blocks
        groups = first(groups, embedding)
        if self.plane_embed is not None:
            groups = [self._embedded(x, group) for x, group in zip(groups, names, strict=True)]
        skips = [groups]
        for block in others:
            groups = block(groups, embedding)
            skips.append(groups)
        groups = self.middle_block(groups, embedding)
        for block in self.output_blocks:
            pairs = zip(groups, skips.pop(), strict=True)
            groups = block([torch.cat(pair, dim=1) for pair in pairs], embedding)
        out: dict[str, Tensor] = {}
        for group, x in zip(names, groups, strict=True):
            done = self.out_conv(F.silu(self.out_norm(x)))
            out |= dict(zip(group, done.chunk(len(group)), strict=True))
        return {name: out[name] for name in PLANES}

    def _embedded(self, x: Tensor, group: list[str]) -> Tensor:
        """Stacked planes (n B, C, a, b), each plus the vector of its name."""
        vectors = self.plane_embed[[PLANES.index(name) for name in group]]  # type: ignore[index]
        return x + vectors.to(x.dtype).repeat_interleave(len(x) // len(group), dim=0)[:, :, None, None]


def _equal_shapes(planes: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of the planes, those of equal shape together."""
    found: dict[torch.Size, list[str]] = {}
    for name in PLANES:
        found.setdefault(planes[name].shape, []).append(name)
    return list(found.values())
