"""The first stage of latent video diffusion: a KL auto-encoder of frames or of clips."""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Frozen, Latent
from vgen.errors import UserError
from vgen.losses import LPIPS, adaptive_weight, discriminator_loss
from vgen.models.video_ldm.networks import Autoencoder3D, FrameAutoencoder
from vgen.nn.patch_discriminator import PatchDiscriminator
from vgen.training import AdversarialModule
from vgen.training.gan import Batch, cut
from vgen.video import ClipSpec

_LOWEST, _HIGHEST = -30.0, 20.0  # log variances, as in the releases
_LARGEST = 1e4  # adaptive weight of a loss that is summed over the values of a frame, as in the releases


class VideoAutoencoder(AdversarialModule):
    """Reconstructs clips from a small Gaussian latent (Rombach et al. 2022, section 3.1; He et al. 2022).

    Loss, per value of the video: |x - x'| + perceptual LPIPS + kl KL/(values of a frame). It is that of both releases,
    divided by the values of a frame. With a discriminator, which judges single frames, hinge losses are added from some
    step on: each batch is then a step of the auto-encoder and one of the discriminator. Its judgement has the weight
    under which it pulls at the decoder's last layer as much as the reconstruction (`adaptive_weight`), times
    `adversarial_weight`. As a codec the model gives the latent's mean, `z`.

    Args:
        clip_spec: Clips; their sides and length are multiples of what the network compresses.
        network: The networks: of single frames, or of clips.
        perceptual: LPIPS, or None for none.
        perceptual_weight: Weight of LPIPS.
        kl_weight: Weight of the KL divergence of the latent from a standard normal, summed over the latent of a frame.
        image_discriminator: Judges single frames (dims 2); None: no adversarial training.
        discriminator_start: Steps of the auto-encoder without it.
        adversarial_weight: Of its judgement, beside the adaptive weight.
        micro_batches: Parts of a batch whose gradients are averaged, with a discriminator.
        optimizer: Optimiser.
        discriminator_optimizer: Optimiser of the discriminator.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    training_only: ClassVar[tuple[str, ...]] = ("perceptual", "image_discriminator")

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: FrameAutoencoder | Autoencoder3D,
        perceptual: LPIPS | None = None,
        perceptual_weight: float = 1.0,
        kl_weight: float = 1e-6,
        image_discriminator: PatchDiscriminator | None = None,
        discriminator_start: int = 0,
        adversarial_weight: float = 0.5,
        micro_batches: int = 1,
        optimizer: OptimizerCallable = torch.optim.Adam,
        discriminator_optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, discriminator_optimizer, lr_scheduler, lr_interval)
        if micro_batches < 1:
            raise UserError(f"must be at least 1, got {micro_batches}", "micro_batches")
        self.network = network
        self.perceptual = None if perceptual is None else Frozen(perceptual)
        self.perceptual_weight, self.kl_weight = perceptual_weight, kl_weight
        self.image_discriminator = image_discriminator
        self.discriminator_start, self.adversarial_weight = discriminator_start, adversarial_weight
        self.micro_batches = micro_batches
        if clip_spec.channels != network.channels:
            raise UserError(f"the data has {clip_spec.channels} channels, the network {network.channels}", "network")
        self._check(clip_spec.frames, clip_spec.height, clip_spec.width)

    def _check(self, *size: int) -> None:
        if any(length % factor for length, factor in zip(size, self.network.factors, strict=True)):
            factors = "x".join(map(str, self.network.factors))
            clip = "x".join(map(str, size))
            raise UserError(f"clips of {clip} (frames, height, width) cannot be divided by {factors}", "data.init_args")

    @property
    def discriminators(self) -> dict[str, nn.Module]:
        """The one of frames, where there is one."""
        return {} if self.image_discriminator is None else {"image": self.image_discriminator}

    # Training ---------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the reconstruction of a batch of clips.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1].
        """
        terms = self._terms(batch["video"])[0]
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _terms(self, video: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The terms, and the reconstruction of a latent that is drawn: (B, C, T, H, W), fp32."""
        mean, log_variance = self._moments(video)
        made = self._drawn(mean, log_variance)
        terms = {"reconstruction": F.l1_loss(made, video.float())}
        if self.perceptual is not None:
            frames = (_frames(made), _frames(video.float()))
            terms["perceptual"] = self.perceptual_weight * self.perceptual.network(*frames)
        if self.kl_weight:
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / len(video)
            terms["kl"] = self.kl_weight * divergence / video[0].numel()
        return terms, made

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of `loss`, the weighted judgement, and its adaptive weight."""
        terms, made = self._terms(batch["video"])
        assert self.image_discriminator is not None
        judgement = -self.image_discriminator(_frames(made))[0].float().mean()
        distance = torch.stack([value for name, value in terms.items() if name != "kl"]).sum()
        largest = _LARGEST / made[0, :, 0].numel()
        adaptive = adaptive_weight(distance, judgement, self.network.last_weight, largest)
        terms["adversarial"] = self.adversarial_weight * adaptive * judgement
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, "adaptive_weight": adaptive}

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Hinge loss of the discriminator on frames and their reconstructions."""
        assert self.image_discriminator is not None
        with torch.no_grad():
            made = self._drawn(*self._moments(batch["video"]))
        real, fake = (self.image_discriminator(_frames(video))[0] for video in (batch["video"].float(), made))
        return {"loss": discriminator_loss(real, fake, "hinge")}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        """A step of the auto-encoder and, from `discriminator_start` on, one of the discriminator on the same clips."""
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        parts, judged = cut(batch, self.micro_batches), self.global_step >= self.discriminator_start
        terms = self.update_generator(parts, self.generator_loss if judged else self.loss)
        if judged:
            found = self.update_discriminators(parts, self.discriminator_loss)
            terms |= {f"d_{name}": value for name, value in found.items()}
        self._log_terms("train", terms, batch)
        return None

    def _drawn(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """A reconstruction from a latent that is drawn."""
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.network.decode(z).float()

    def _moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network.encode(video).float().chunk(2, dim=1)
        return mean, log_variance.clamp(_LOWEST, _HIGHEST)

    # The codec --------------------------------------------------------------------------------------------------------

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


def _frames(video: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B T, C, H, W)."""
    return video.transpose(1, 2).flatten(0, 1)
