"""TGAN: temporal generative adversarial nets with singular value clipping (Saito et al. 2017)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.losses.adversarial import discriminator_loss, generator_loss, share_of_wins
from vgen.models.tgan.networks import Critic, VideoGenerator
from vgen.training import Constraint, Draw, SingularValueClipping, VideoGAN
from vgen.training.gan import Batch, cut, opposed
from vgen.video import ClipSpec


class TGAN(VideoGAN):
    """Generates clips frame by frame from codes that come from one code of the clip, against a Wasserstein critic.

    The game is of zero sum, and one forward and backward pass serves both sides, as in the release: the critic judges
    the clips that the generator made before its step.

    Args:
        clip_spec: Clips to generate, a multiple of 16 frames.
        generator: See `VideoGenerator`.
        discriminator: The critic.
        constraint: What keeps the critic Lipschitz: `SingularValueClipping` (published), or `WeightClipping`.
        micro_batches: Parts of a step.
        optimizer: Optimiser of the generator.
        discriminator_optimizer: Optimiser of the critic.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
        discriminator_clip: Largest norm of the gradient of the critic.
        generator_clip: The same of the generator.
    """

    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)

    def __init__(
        self,
        clip_spec: ClipSpec,
        generator: VideoGenerator,
        discriminator: Critic | None,
        constraint: Constraint = SingularValueClipping(),  # noqa: B008  (frozen)
        micro_batches: int = 1,
        optimizer: OptimizerCallable = torch.optim.RMSprop,
        discriminator_optimizer: OptimizerCallable = torch.optim.RMSprop,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
        discriminator_clip: float | None = None,
        generator_clip: float | None = None,
    ) -> None:
        super().__init__(
            clip_spec, 1, micro_batches, None, constraint, optimizer, discriminator_optimizer, lr_scheduler,
            lr_interval, discriminator_clip, generator_clip,
        )  # fmt: skip
        generator.prepare(clip_spec)
        if discriminator is not None:
            discriminator.prepare(clip_spec)
        self.generator, self.discriminator = generator, discriminator

    @property
    def discriminators(self) -> dict[str, nn.Module]:
        """The critic."""
        return {} if self.discriminator is None else {"critic": self.discriminator}

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """None."""
        return {}

    def draws(self, frames: int) -> dict[str, Draw]:
        """`slow`, uniform in [-1, 1].

        Raises:
            UserError: Another length than that of training.
        """
        if frames != self.clip_spec.frames:
            raise UserError(f"TGAN makes clips of {self.clip_spec.frames} frames, not of {frames}", "frames")
        return {"slow": Draw((self.generator.slow,), "uniform")}

    def clips(self, latents: Mapping[str, Tensor], conditions: Mapping[str, Any]) -> Tensor:
        """See `VideoGAN`."""
        return self.generator(latents["slow"])  # type: ignore[no-any-return]

    # Training ---------------------------------------------------------------------------------------------------------

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the critic minimises and, where its steps and the generator's are one, the generator maximises."""
        assert self.discriminator is not None
        video = batch["video"]
        fake = self.clips(self.latents(len(video)), {})
        # one after the other, generated first, as released: batches of BatchNorm
        said = self.discriminator(opposed(fake))
        real = self.discriminator(video)
        loss = 2 * discriminator_loss(real, said, "wgan")
        return {"loss": loss, "generator": generator_loss(said, "wgan").detach(), "wins": share_of_wins(real, said)}

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """The generator's part alone, for validation."""
        assert self.discriminator is not None
        return {"loss": generator_loss(self.discriminator(self.clips(self.latents(len(batch["video"])), {})), "wgan")}

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """One step of both."""
        terms = self.update_together(cut(batch, self.micro_batches), self.discriminator_loss)
        shown = {"loss": terms["generator"], "d_loss": terms["loss"], "d_wins_critic": terms["wins"]}
        self._log_terms("train", shown, batch)
