"""PVDM's video autoencoder: a transformer whose bottleneck is three planes (section 3.1, appendix A)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.models.pvdm.networks.transformer import Projector, RopeLayout, RotaryGrid, SpaceTimeTransformer
from vgen.models.pvdm.planes import PLANES, PlaneGrid
from vgen.video import ClipSpec


class ViTAutoencoder(Configurable, nn.Module):
    """Encodes a clip to the planes xy, yt and xt, and decodes their broadcast sum.

    Patches of every frame become tokens (T, H', W'); a TimeSformer runs over them. Three projectors reduce time, height
    and width. The decoder lifts each plane to C channels, adds the three along the axes that they lack (the paper
    concatenates them; the released code adds), and runs another TimeSformer. Official: 62,064,399 parameters at 16
    frames of 256x256 pixels.

    The tables of positions depend on the clips: `prepare` makes them.

    Args:
        channels: Channels C of a token, a multiple of twice the projectors' heads.
        latent_channels: Channels of a plane.
        depth: Layers of encoder and decoder each.
        heads: Attention heads of encoder and decoder.
        dim_head: Channels of such a head, a multiple of 4.
        patch_size: Side of a patch in pixels.
        projector_depth: Layers of a projector.
        projector_heads: Its attention heads.
        projector_hidden: Width of its feed-forward; 512 whatever C is.
        projector_readout: Which of its outputs is kept; `first` in released weights (see `Projector`).
        rope_layout: Rotary angles of time; `half_split_adjacent` in released weights (see `time_angles`).
        num_channels: Colour channels.
        checkpointing: Compute activations of encoder and decoder again in the backward pass: less memory, more time.
    """

    def __init__(
        self,
        channels: int = 384,
        latent_channels: int = 4,
        depth: int = 8,
        heads: int = 8,
        dim_head: int = 64,
        patch_size: int = 8,
        projector_depth: int = 4,
        projector_heads: int = 4,
        projector_hidden: int = 512,
        projector_readout: Literal["first", "appended"] = "first",
        rope_layout: RopeLayout = "half_split_adjacent",
        num_channels: int = 3,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if channels % (2 * projector_heads):
            raise UserError(f"{channels} channels are no multiple of {2 * projector_heads}", "network.channels")
        if dim_head % 4:
            raise UserError(f"axial rotary angles need a multiple of 4, not {dim_head}", "network.dim_head")
        self.channels, self.latent_channels, self.patch_size = channels, latent_channels, patch_size
        self.num_channels, self.dim_head, self.rope_layout = num_channels, dim_head, rope_layout
        self.grid: PlaneGrid | None = None
        self.rotary: RotaryGrid | None = None
        self.to_tokens = nn.Linear(num_channels * patch_size**2, channels)
        self.encoder = SpaceTimeTransformer(channels, depth, heads, dim_head, checkpointing)
        self.decoder = SpaceTimeTransformer(channels, depth, heads, dim_head, checkpointing)
        self.projectors = nn.ModuleDict(
            {
                name: Projector(
                    channels, latent_channels, projector_depth, projector_heads, projector_hidden, projector_readout
                )
                for name in PLANES
            }
        )
        self.lift = nn.ModuleDict({name: nn.Linear(latent_channels, channels) for name in PLANES})
        self.to_pixel = nn.ConvTranspose2d(channels, num_channels, patch_size, stride=patch_size)

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the tables of positions of such clips; called once, before weights are loaded.

        Raises:
            UserError: The frames cannot be cut into patches, or have other channels.
        """
        if clip_spec.channels != self.num_channels:
            what = f"the data has {clip_spec.channels} channels, the network {self.num_channels}"
            raise UserError(what, "network.num_channels")
        for name in ("height", "width"):
            side = getattr(clip_spec, name)
            if side % self.patch_size:
                hint = f"use a data size of {max(side // self.patch_size, 1) * self.patch_size}, or another patch_size"
                what = f"a {name} of {side} pixels cannot be cut into patches of {self.patch_size}"
                raise UserError(what, "network.patch_size", hint)
        grid = PlaneGrid(clip_spec.frames, clip_spec.height // self.patch_size, clip_spec.width // self.patch_size)
        lengths = {"xy": grid.time, "yt": grid.height, "xt": grid.width}
        for name, projector in self.projectors.items():
            projector.prepare(lengths[name])  # type: ignore[operator]
        self.rotary = RotaryGrid(grid.time, grid.height, grid.width, self.dim_head, self.rope_layout)
        self.grid = grid

    def encode(self, video: Tensor) -> dict[str, Tensor]:
        """Encodes clips.

        Args:
            video: (B, C, T, H, W) in [-1, 1], of the size that the network was prepared for.

        Returns:
            xy (B, c, H', W'), yt (B, c, T, W'), xt (B, c, T, H'), in (-1, 1).
        """
        grid, rotary = self._geometry()
        side = self.patch_size
        wanted = (self.num_channels, grid.time, grid.height * side, grid.width * side)
        if video.shape[1:] != wanted:
            raise UserError(f"the autoencoder encodes clips of {wanted} (C, T, H, W), not {tuple(video.shape[1:])}")
        patches = video.unflatten(4, (grid.width, side)).unflatten(3, (grid.height, side))
        # (B, C, T, H', p, W', p) -> (T, B, H', W', p, p, C): the channel is the fastest within a patch
        patches = patches.permute(2, 0, 3, 5, 4, 6, 1)
        tokens = self.encoder(self.to_tokens(patches.flatten(4)).flatten(2, 3), rotary)
        tokens = tokens.unflatten(2, (grid.height, grid.width))
        # sequences of the axis that goes, for each place of the plane; (T, B, H', W', C) is in that order for time
        reduced = {"xy": tokens, "yt": tokens.permute(2, 1, 0, 3, 4), "xt": tokens.permute(3, 1, 0, 2, 4)}
        planes = {}
        for name, sequences in reduced.items():
            vectors = self.projectors[name](sequences.flatten(1, 3))
            planes[name] = vectors.view(len(video), *grid.shapes[name], -1).permute(0, 3, 1, 2).contiguous()
        return planes

    def decode(self, planes: dict[str, Tensor]) -> Tensor:
        """Decodes planes (see `encode`) to (B, C, T, H, W) in [-1, 1]."""
        grid, rotary = self._geometry()
        tokens = self.decoder(self.lifted(planes).flatten(2, 3), rotary)
        time, batch = tokens.shape[:2]
        # with stride = kernel, the transposed convolution is one matrix product for each patch
        pixels = F.linear(tokens, self.to_pixel.weight.flatten(1).T)
        side = self.patch_size
        pixels = pixels.view(time, batch, grid.height, grid.width, self.num_channels, side, side)
        video = pixels.permute(1, 4, 0, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
        assert self.to_pixel.bias is not None
        # 2 sigmoid(x) - 1
        return torch.tanh((video + self.to_pixel.bias[:, None, None, None]) / 2)

    def lifted(self, planes: dict[str, Tensor]) -> Tensor:
        """The decoder's input: planes of C channels, added along the axes that they lack: (T, B, H', W', C)."""
        xy, yt, xt = (self.lift[name](planes[name].movedim(1, -1)) for name in PLANES)
        return xy[None] + yt.transpose(0, 1)[:, :, None] + xt.transpose(0, 1)[:, :, :, None]

    def forward(self, video: Tensor) -> Tensor:
        """Reconstructs clips: (B, C, T, H, W) in [-1, 1] -> the same."""
        return self.decode(self.encode(video))

    def _geometry(self) -> tuple[PlaneGrid, RotaryGrid]:
        assert self.grid is not None and self.rotary is not None, "prepare() comes first"
        return self.grid, self.rotary
