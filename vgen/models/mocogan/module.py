"""MoCoGAN: content and motion decomposed (Tulyakov et al. 2018)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.losses.adversarial import generator_loss
from vgen.losses.gradient_penalty import GradientPenalty
from vgen.models.mocogan.networks import Discriminator, VideoGenerator
from vgen.nn.precision import at_least_fp32
from vgen.training import Draw, VideoGAN
from vgen.training.gan import Batch
from vgen.video import ClipSpec, frame_of_each

Seen = dict[str, Tensor]


class MoCoGAN(VideoGAN):
    """Generates clips of any length from a content code, a category of motion and a path of motion codes.

    One discriminator sees single frames, each of another clip, and one sees clips. With categories the latter also
    names them: it learns to from the labels of real clips (`labels`), and the generator from what it says of its own
    (`infogan`; equations 9 and 10).

    Args:
        clip_spec: Clips to generate.
        generator: See `VideoGenerator`.
        image_discriminator: Judges frames.
        video_discriminator: Judges clips.
        labels: The discriminator of clips learns categories from labels: `--use_categories` of the release. Without
            it, `infogan` is purely InfoGAN's.
        infogan: The generator is to make clips whose category can be named: `--use_infogan`.
        category_weight: Weight lambda of both.
        video_batch: So many clips of a batch are seen, and as many generated, as clips; of all the others and of
            these, one frame each. None: all of them. Published: 3 of 10.
        critic_steps: Steps of the discriminators for one of the generator.
        micro_batches: Parts of each step.
        penalty: Penalty on the gradients of the discriminators; none is published.
        optimizer: Optimiser of the generator.
        discriminator_optimizer: Optimiser of both discriminators.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
        discriminator_clip: Largest norm of the gradient of each discriminator.
        generator_clip: The same of the generator.
    """

    training_only: ClassVar[tuple[str, ...]] = ("image_discriminator", "video_discriminator")

    def __init__(
        self,
        clip_spec: ClipSpec,
        generator: VideoGenerator,
        image_discriminator: Discriminator | None,
        video_discriminator: Discriminator | None,
        labels: bool = False,
        infogan: bool = False,
        category_weight: float = 1.0,
        video_batch: int | None = None,
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
        for network in (generator, image_discriminator, video_discriminator):
            if network is not None:
                network.prepare(clip_spec)
        self.generator = generator
        self.image_discriminator, self.video_discriminator = image_discriminator, video_discriminator
        self.labels, self.infogan, self.category_weight = labels, infogan, category_weight
        self.video_batch = video_batch
        self._check()

    def _check(self) -> None:
        spec, video = self.clip_spec, self.video_discriminator
        if self.image_discriminator is not None and self.image_discriminator.dims != 2:
            raise UserError("this one judges clips", "image_discriminator.dims", "2 judges frames")
        if video is not None and video.dims != 3:
            raise UserError("this one judges frames", "video_discriminator.dims", "3 judges clips")
        if (self.labels or self.infogan) and video is not None and video.categories != self.generator.categories:
            what = f"{video.categories} categories are named, and {self.generator.categories} generated"
            raise UserError(what, "video_discriminator.categories")
        if self.infogan and not self.generator.categories:
            raise UserError("there are no categories", "generator.categories", "null: the classes of the data")
        if self.labels and len(spec.class_names) != self.generator.categories:
            what = f"the data has {len(spec.class_names)} classes, the generator {self.generator.categories} categories"
            raise UserError(what, "generator.categories", "null: as many as the data has")

    @property
    def discriminators(self) -> dict[str, nn.Module]:
        """Those of frames and of clips."""
        both = {"image": self.image_discriminator, "video": self.video_discriminator}
        return {name: network for name, network in both.items() if network is not None}

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The label, where categories mean classes."""
        given = super().conditions(batch) if self.labels and self.infogan else {}
        return {key: value for key, value in given.items() if key == "label"}

    def draws(self, frames: int) -> dict[str, Draw]:
        """`content`, `start`, `noise` for each frame and, with categories, `category`."""
        network = self.generator
        draws = {"content": Draw((network.content,)), "start": Draw((network.motion,))}
        draws["noise"] = Draw((network.motion,), frames=frames)
        if network.categories:
            draws["category"] = Draw((), "category", choices=network.categories)
        return draws

    def clips(self, latents: Mapping[str, Tensor], conditions: Mapping[str, Any]) -> Tensor:
        """See `VideoGAN`; a label takes the place of the category that was drawn (-1: it does not)."""
        latents = dict(latents)
        if (label := conditions.get("label")) is not None:
            latents["category"] = torch.where(label < 0, latents["category"], label)
        return self.generator(**latents)  # type: ignore[no-any-return]

    # Training ---------------------------------------------------------------------------------------------------------

    def _real(self, batch: Batch) -> Seen:
        """A random frame of each clip, and the first clips."""
        video = batch["video"][:, :, : self.clip_spec.frames]
        index = torch.randint(video.shape[2], (len(video),), device=video.device)
        return {"image": frame_of_each(video, index), "video": video[: self.video_batch]}

    def _fake(self, real: Seen) -> tuple[Seen, Tensor | None]:
        """As many frames, each of another clip, of which no other frame is made; as many clips and their categories."""
        latents = self.latents(len(real["image"]))
        codes = self.generator.codes(**latents)
        index = torch.randint(codes.shape[1], (len(codes),), device=codes.device)
        frames = self.generator.pictures(codes[torch.arange(len(codes), device=codes.device), index])
        latents = self.latents(len(real["video"]))
        return {"image": frames, "video": self.generator(**latents)}, latents.get("category")

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of each discriminator, and of the categories of real clips."""
        real = self._real(batch)
        with torch.no_grad():
            fake, _ = self._fake(real)
        terms: dict[str, Tensor] = {}
        for name, network in self.discriminators.items():
            (said_real, named), (said_fake, _) = network(real[name]), network(fake[name])
            terms |= self.judgement(name, real[name], fake[name], (said_real, said_fake), partial(_score, network))
            if name == "video" and self.labels:
                terms["category"] = self._category_loss(named, batch["label"][: len(named)])
        return self.total(terms)

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """What the discriminators say of generated frames and clips, and whether their categories are named."""
        fake, category = self._fake(self._real(batch))
        terms: dict[str, Tensor] = {}
        for name, network in self.discriminators.items():
            said, named = network(fake[name])
            terms[name] = generator_loss(said, "vanilla")
            if name == "video" and self.infogan and category is not None:
                terms["category"] = self._category_loss(named, category)
        return self.total(terms)

    def _category_loss(self, named: Tensor, category: Tensor) -> Tensor:
        """Cross-entropy; for patches, the mean over them."""
        scores = at_least_fp32(named)
        if scores.ndim > 2:
            category = category.view(-1, *[1] * (scores.ndim - 2)).expand(-1, *scores.shape[2:])
        return self.category_weight * F.cross_entropy(scores, category)


def _score(network: nn.Module, x: Tensor) -> Tensor:
    """How real a discriminator takes samples to be."""
    score: Tensor = network(x)[0]
    return score
