"""PVDM's first stage: the autoencoder of planes, trained for reconstruction, then further against discriminators."""

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Frozen, Latent
from vgen.errors import UserError
from vgen.losses import AdversarialLoss
from vgen.models.pvdm.losses import (
    LossWeights,
    PixelDistance,
    discriminator_terms,
    generator_terms,
    reconstruction_terms,
)
from vgen.models.pvdm.networks import ViTAutoencoder
from vgen.models.pvdm.planes import PlaneGrid
from vgen.nn.patch_discriminator import PatchDiscriminator
from vgen.nn.precision import at_least_fp32
from vgen.training import AdversarialModule
from vgen.training.gan import Batch, cut
from vgen.video import ClipSpec


class PlaneAutoencoder(AdversarialModule):
    """Encodes clips to three planes in (-1, 1) and decodes them (section 3.1).

    Without discriminators it learns to reconstruct: L1 of pixels and LPIPS of one random frame of each clip. With them,
    which begins from such a model (`init_from`), it also learns from their judgement and by feature matching. A batch
    is then cut in halves: one for a step of the autoencoder, the other for a step of the discriminators, each in
    `micro_batches` parts, over which gradients are averaged and BatchNorm has its statistics.

    Args:
        clip_spec: Clips to encode. Longer ones are reconstructed clip by clip.
        network: The autoencoder.
        perceptual: Distance of two (N, C, H, W) in [-1, 1]; None: no such term.
        image_discriminator: Judges one random frame of each clip (dims 2).
        video_discriminator: Judges clips (dims 3).
        weights: Weights of the terms.
        pixel_distance: l1 as published. On pictures that are black for the most part it makes all of them black, before
            anything is learned; l2 does not.
        adversarial_loss: Loss of the discriminators.
        micro_batches: Parts of a step of adversarial training.
        optimizer: Optimiser of the autoencoder.
        discriminator_optimizer: Optimiser of both discriminators.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
        discriminator_clip: Largest norm of the gradient of each discriminator.
    """

    training_only: ClassVar[tuple[str, ...]] = ("perceptual", "image_discriminator", "video_discriminator")

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: ViTAutoencoder,
        perceptual: nn.Module | None,
        image_discriminator: PatchDiscriminator | None = None,
        video_discriminator: PatchDiscriminator | None = None,
        weights: LossWeights = LossWeights(),  # noqa: B008  (frozen)
        pixel_distance: PixelDistance = "l1",
        adversarial_loss: AdversarialLoss = "hinge",
        micro_batches: int = 1,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        discriminator_optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
        discriminator_clip: float | None = 1.0,
    ) -> None:
        super().__init__(clip_spec, optimizer, discriminator_optimizer, lr_scheduler, lr_interval, discriminator_clip)
        if micro_batches < 1:
            raise UserError(f"must be at least 1, got {micro_batches}", "micro_batches")
        network.prepare(clip_spec)
        self.network = network
        self.perceptual = None if perceptual is None else Frozen(perceptual)
        self.image_discriminator, self.video_discriminator = image_discriminator, video_discriminator
        self.weights, self.pixel_distance = weights, pixel_distance
        self.adversarial_loss, self.micro_batches = adversarial_loss, micro_batches

    @property
    def discriminators(self) -> dict[str, nn.Module]:
        """Those of frames and of clips."""
        both = {"image": self.image_discriminator, "video": self.video_discriminator}
        return {name: network for name, network in both.items() if network is not None}

    @property
    def grid(self) -> PlaneGrid:
        """Sides of the token grid of a clip."""
        assert self.network.grid is not None
        return self.network.grid

    # Training ---------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction's terms, and its PSNR per clip in dB (which is no term).

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1]; longer validation clips are cut into clips of the trained length.
        """
        video, frames = batch["video"], self.clip_spec.frames
        if (count := video.shape[2] // frames) > 1:
            video = video[:, :, : count * frames].unflatten(2, (count, frames)).transpose(1, 2).flatten(0, 1)
        return self._reconstruction(video, self.network(video), self._frame_index(video))

    def _frame_index(self, video: Tensor) -> Tensor:
        return torch.randint(video.shape[2], (len(video),), device=video.device)

    def _reconstruction(self, real: Tensor, fake: Tensor, index: Tensor) -> dict[str, Tensor]:
        perceptual = None if self.perceptual is None else self.perceptual.network
        terms = reconstruction_terms(real, fake, index, perceptual, self.weights, self.pixel_distance)
        with torch.no_grad():
            errors = (at_least_fp32(fake) - at_least_fp32(real)).square().flatten(1).mean(1)
            psnr = (10 * torch.log10(4 / errors.clamp(min=1e-10))).mean()  # values span 2
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, "psnr": psnr}

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of `loss`, and those of `generator_terms`."""
        video = batch["video"]
        fake, index = self.network(video), self._frame_index(video)
        terms = self._reconstruction(video, fake, index)
        judged = generator_terms(video, fake, index, self.discriminators, self.weights)
        return {**terms, **judged, "loss": terms["loss"] + torch.stack(list(judged.values())).sum()}

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of `discriminator_terms`, and their sum."""
        video = batch["video"]
        with torch.no_grad():
            fake = self.network(video)
        terms = discriminator_terms(
            video, fake, self._frame_index(video), self.discriminators, self.weights, self.adversarial_loss
        )
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        """A step of the autoencoder and, on other clips, one of the discriminators, in the released order."""
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        parts = cut(batch, 2 * self.micro_batches)
        terms = self.update_generator(parts[: self.micro_batches], self.generator_loss)
        judged = self.update_discriminators(parts[self.micro_batches :], self.discriminator_loss)
        self._log_terms("train", terms | {f"d_{name}": value for name, value in judged.items()}, batch)
        return None

    # The codec --------------------------------------------------------------------------------------------------------

    def encode(self, video: Tensor, reference: Tensor | None = None) -> Latent:
        """Planes `xy` (B, c, H', W'), `yt` (B, c, T, W'), `xt` (B, c, T, H') in (-1, 1).

        Args:
            video: (B, C, T, H, W) in [-1, 1], of exactly the T that the model was trained with.
            reference: Not used.
        """
        return self.network.encode(video)

    def decode(self, latent: Latent) -> Tensor:
        """Clips (B, C, T, H, W) in [-1, 1]."""
        return self.network.decode(latent)

    def latent_spec(self, clip_spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        """Shapes of the latent of one clip."""
        side = self.network.patch_size
        grid = PlaneGrid(clip_spec.frames, clip_spec.height // side, clip_spec.width // side)
        return {name: (self.network.latent_channels, *shape) for name, shape in grid.shapes.items()}

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """Clips of any length, in pieces of the trained one; the last piece stands still where frames are missing."""
        video: Tensor = batch["video"]
        count, frames = video.shape[2], self.clip_spec.frames
        still = video[:, :, -1:].expand(-1, -1, -count % frames, -1, -1)
        pieces = torch.cat((video, still), dim=2).unflatten(2, (-1, frames)).transpose(1, 2)
        decoded = self.network(pieces.flatten(0, 1)).unflatten(0, pieces.shape[:2])
        return decoded.transpose(1, 2).flatten(2, 3)[:, :, :count]
