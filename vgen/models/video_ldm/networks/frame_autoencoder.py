"""The KL auto-encoder of latent diffusion (Rombach et al. 2022), frame by frame, by diffusers' AutoencoderKL."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError


class FrameAutoencoder(Configurable, nn.Module):
    """Compresses every frame of a clip by itself to a Gaussian latent.

    The defaults are those of Stable Diffusion: 83,653,863 parameters, 8 times smaller sides.

    Args:
        latent_channels: Channels of the latent.
        block_out_channels: Width of each level; one halving less than levels.
        layers_per_block: Residual blocks of a level of the encoder; one more in the decoder.
        norm_num_groups: GroupNorm groups.
        image_channel: Channels of the video.
        chunk: Frames computed at once; None: all, fewer take less memory.
        pretrained: Weights to begin with: a folder that diffusers wrote, or an id of the hub whose files are in its
            cache (`stabilityai/sd-vae-ft-mse`); the other arguments must be its own. A checkpoint needs it no more.
    """

    training_only: ClassVar[tuple[str, ...]] = ("pretrained",)

    def __init__(
        self,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        image_channel: int = 3,
        chunk: int | None = None,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # slow import, needed here alone

        levels = len(block_out_channels)
        network: Any = AutoencoderKL(
            in_channels=image_channel,
            out_channels=image_channel,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_num_groups,
        )
        if pretrained is not None:
            network.load_state_dict(_pretrained(pretrained).state_dict())
        self.vae = network
        self.channels, self.latent_channels, self.chunk = image_channel, latent_channels, chunk
        self.factors = (1, 2 ** (levels - 1), 2 ** (levels - 1))

    @property
    def last_weight(self) -> Tensor:
        """Weights of the decoder's last layer."""
        weight: Tensor = self.vae.decoder.conv_out.weight
        return weight

    def encode(self, video: Tensor) -> Tensor:
        """Mean and log variance of the latent, (B, C, T, H, W) in [-1, 1] -> (B, 2 latent_channels, T, h, w)."""
        return self._each(video, lambda frames: self.vae.encode(frames).latent_dist.parameters)

    def decode(self, z: Tensor) -> Tensor:
        """(B, latent_channels, T, h, w) -> (B, C, T, H, W)."""
        return self._each(z, lambda frames: self.vae.decode(frames).sample)

    def _each(self, clips: Tensor, compute: Any) -> Tensor:
        frames = clips.transpose(1, 2)
        flat = frames.flatten(0, 1)
        parts = [compute(part) for part in flat.split(self.chunk or len(flat))]
        return torch.cat(parts).unflatten(0, frames.shape[:2]).transpose(1, 2)


def _pretrained(name: str) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no auto-encoder {name!r} on this machine",
            "network.init_args.pretrained",
            f"`huggingface-cli download {name}` fetches it, or name a folder that diffusers wrote",
        ) from error
