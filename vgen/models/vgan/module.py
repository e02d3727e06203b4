"""VGAN: generating videos with scene dynamics (Vondrick et al. 2016)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.losses.adversarial import generator_loss
from vgen.losses.gradient_penalty import GradientPenalty
from vgen.models.vgan.networks import Discriminator, FutureGenerator, VideoGenerator
from vgen.nn.precision import at_least_fp32
from vgen.training import Draw, VideoGAN
from vgen.training.gan import Batch
from vgen.video import ClipSpec, Field


class VGAN(VideoGAN):
    """Generates a moving foreground over a background that stands still, from noise or from a first picture.

    Args:
        clip_spec: Clips to generate, a multiple of 16 frames.
        generator: `VideoGenerator`, or `FutureGenerator`, which goes on from a picture.
        discriminator: Judges clips.
        mask_penalty: Weight of the mean of the mask, which keeps the foreground from taking over; 0.1, and 0 for
            futures.
        picture_weight: Weight of the mean L1 distance of a future's first frame to its picture; 10.
        critic_steps: Steps of the discriminator for one of the generator.
        micro_batches: Parts of each step.
        penalty: Penalty on the gradients of the discriminator; none is published.
        optimizer: Optimiser of the generator.
        discriminator_optimizer: Optimiser of the discriminator.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
        discriminator_clip: Largest norm of the gradient of the discriminator.
        generator_clip: The same of the generator.
    """

    training_only: ClassVar[tuple[str, ...]] = ("discriminator",)

    def __init__(
        self,
        clip_spec: ClipSpec,
        generator: VideoGenerator | FutureGenerator,
        discriminator: Discriminator | None,
        mask_penalty: float = 0.1,
        picture_weight: float = 10.0,
        critic_steps: int = 1,
        micro_batches: int = 1,
        penalty: GradientPenalty | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        discriminator_optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
        discriminator_clip: float | None = None,
        generator_clip: float | None = None,
    ) -> None:
        super().__init__(
            clip_spec, critic_steps, micro_batches, penalty, None, optimizer, discriminator_optimizer, lr_scheduler,
            lr_interval, discriminator_clip, generator_clip,
        )  # fmt: skip
        generator.prepare(clip_spec)
        if discriminator is not None:
            discriminator.prepare(clip_spec)
        self.generator, self.discriminator = generator, discriminator
        self.mask_penalty, self.picture_weight = mask_penalty, picture_weight

    @property
    def discriminators(self) -> dict[str, nn.Module]:
        """The one of clips."""
        return {} if self.discriminator is None else {"video": self.discriminator}

    @property
    def from_picture(self) -> bool:
        """Whether clips go on from a picture."""
        return isinstance(self.generator, FutureGenerator)

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """`image` (B, C, H, W), the first frame, where clips go on from one."""
        if not self.from_picture:
            return {}
        return {"image": batch["image"] if "image" in batch else batch["video"][:, :, 0]}

    def draws(self, frames: int) -> dict[str, Draw]:
        """`code`, where clips are not made of a picture alone.

        Raises:
            UserError: Another length than that of training.
        """
        if frames != self.clip_spec.frames:
            raise UserError(f"VGAN makes clips of {self.clip_spec.frames} frames, not of {frames}", "frames")
        return {} if isinstance(self.generator, FutureGenerator) else {"code": Draw((self.generator.code,))}

    def scene(self, latents: Mapping[str, Tensor], conditions: Mapping[str, Any]) -> dict[str, Tensor]:
        """Clips and what they are composed of; see `VideoGenerator.forward`.

        Raises:
            UserError: There is no picture to go on from.
        """
        if not self.from_picture:
            return self.generator(latents["code"])  # type: ignore[no-any-return]
        if conditions.get("image") is None:
            raise UserError("this model goes on from a picture", "sample(image=)", "give one: --image face.png")
        return self.generator(conditions["image"].to(self.dtype))  # type: ignore[no-any-return]

    def clips(self, latents: Mapping[str, Tensor], conditions: Mapping[str, Any]) -> Tensor:
        """See `VideoGAN`."""
        return self.scene(latents, conditions)["video"]

    # Training ---------------------------------------------------------------------------------------------------------

    def prepare(self, part: Batch) -> Batch:
        """Adds the scenes that both sides see, as released: the generator's step is on clips that were just judged."""
        return {**part, "scene": self.scene(self.latents(len(part["video"])), self.conditions(part))}

    def _score(self, video: Tensor) -> Tensor:
        """How real clips are: the difference of the logits, of which cross-entropy is the logistic loss."""
        assert self.discriminator is not None
        logits = self.discriminator(video)
        return logits[:, 0] - logits[:, 1]

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on real and on generated clips."""
        real, fake = batch["video"], batch["scene"]["video"].detach()
        said = self._score(real), self._score(fake)
        return self.total(self.judgement("video", real, fake, said, self._score))

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the discriminator says, the mask's penalty, and the distance of a future to its picture."""
        scene = batch["scene"]
        terms = {"video": generator_loss(self._score(scene["video"]), "vanilla")}
        if "mask" in scene and self.mask_penalty:
            terms["mask"] = mask_penalty(scene["mask"], self.mask_penalty)
        if self.from_picture:
            first, picture = at_least_fp32(scene["video"][:, :, 0]), self.conditions(batch)["image"]
            terms["picture"] = self.picture_weight * F.l1_loss(first, at_least_fp32(picture))
        return self.total(terms)

    @torch.no_grad()
    def illustrate(self, batch: dict[str, Any], seeds: list[int]) -> dict[str, Tensor | Field]:
        """The clips, and foreground, mask and background of two streams."""
        scene = self.scene(self.latents(len(seeds), seeds=seeds), self.conditions(batch))
        shown: dict[str, Tensor | Field] = {"generated": scene["video"].float()}
        if "mask" in scene:
            shown["foreground"] = scene["foreground"].float()
            shown["mask"] = Field("share", scene["mask"].float(), "white: the foreground is seen")
            still = scene["background"].float()[:, :, None]
            shown["background"] = still.expand(-1, -1, scene["video"].shape[2], -1, -1)
        return shown


def mask_penalty(mask: Tensor, weight: float) -> Tensor:
    """Weighted mean of the magnitude of a mask, in fp32: Torch7's L1Penalty with its average of sizes."""
    return weight * at_least_fp32(mask).abs().mean()
