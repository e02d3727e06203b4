"""The first stage of latent video diffusion: a KL auto-encoder of frames or of clips."""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.codecs import Frozen, Latent
from vgen.errors import UserError
from vgen.losses import LPIPS
from vgen.models.video_ldm.networks import Autoencoder3D, FrameAutoencoder
from vgen.training import SingleLossModule
from vgen.video import ClipSpec

_LOWEST, _HIGHEST = -30.0, 20.0  # log variances, as in the releases


class VideoAutoencoder(SingleLossModule):
    """Reconstructs clips from a small Gaussian latent (Rombach et al. 2022, section 3.1; He et al. 2022).

    Loss, per value of the video: |x - x'| + perceptual LPIPS + kl KL/(values of a frame). It is that of both releases,
    divided by the values of a frame, and without their discriminator. As a codec it gives the latent's mean, `z`.

    Args:
        clip_spec: Clips; their sides and length are multiples of what the network compresses.
        network: The networks: of single frames, or of clips.
        perceptual: LPIPS, or None for none.
        perceptual_weight: Weight of LPIPS.
        kl_weight: Weight of the KL divergence of the latent from a standard normal, summed over the latent of a frame.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    training_only: ClassVar[tuple[str, ...]] = ("perceptual",)

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: FrameAutoencoder | Autoencoder3D,
        perceptual: LPIPS | None = None,
        perceptual_weight: float = 1.0,
        kl_weight: float = 1e-6,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.network = network
        self.perceptual = None if perceptual is None else Frozen(perceptual)
        self.perceptual_weight, self.kl_weight = perceptual_weight, kl_weight
        if clip_spec.channels != network.channels:
            raise UserError(f"the data has {clip_spec.channels} channels, the network {network.channels}", "network")
        self._check(clip_spec.frames, clip_spec.height, clip_spec.width)

    def _check(self, *size: int) -> None:
        if any(length % factor for length, factor in zip(size, self.network.factors, strict=True)):
            factors = "x".join(map(str, self.network.factors))
            clip = "x".join(map(str, size))
            raise UserError(f"clips of {clip} (frames, height, width) cannot be divided by {factors}", "data.init_args")

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss terms of a batch of clips.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1].
        """
        video = batch["video"]
        mean, log_variance = self._moments(video)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        made = self.network.decode(z).float()
        terms = {"reconstruction": F.l1_loss(made, video.float())}
        if self.perceptual is not None:
            frames = (clip.transpose(1, 2).flatten(0, 1) for clip in (made, video.float()))
            terms["perceptual"] = self.perceptual_weight * self.perceptual.network(*frames)
        if self.kl_weight:
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / len(video)
            terms["kl"] = self.kl_weight * divergence / video[0].numel()
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network.encode(video).float().chunk(2, dim=1)
        return mean, log_variance.clamp(_LOWEST, _HIGHEST)

    def encode(self, video: Tensor, reference: Tensor | None = None) -> Latent:
        """The mean of the latent of a clip (B, C, T, H, W) in [-1, 1]; there is no reference frame."""
        self._check(*video.shape[2:])
        return {"z": self._moments(video)[0]}

    def decode(self, latent: Latent) -> Tensor:
        """The clip (B, C, T, H, W) in [-1, 1] of `z`."""
        dtype = next(self.network.parameters()).dtype
        return self.network.decode(latent["z"].to(dtype)).float().clamp(-1, 1)

    def latent_spec(self, clip_spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        """Shape of the latent of one clip."""
        self._check(clip_spec.frames, clip_spec.height, clip_spec.width)
        size = (clip_spec.frames, clip_spec.height, clip_spec.width)
        sides = (length // factor for length, factor in zip(size, self.network.factors, strict=True))
        return {"z": (self.network.latent_channels, *sides)}

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """The clips from the means of their latents: (B, C, T, H, W) in [-1, 1]."""
        return self.decode(self.encode(batch["video"]))
