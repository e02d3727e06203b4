"""Generators from noise to clips, against discriminators: what the families of this kind share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.diffusion.noise import mix
from vgen.errors import UserError
from vgen.losses.adversarial import GANLoss, judgement_losses, share_of_wins
from vgen.losses.gradient_penalty import GradientPenalty
from vgen.training.clip_statistics import ClipStatistics
from vgen.training.constraints import Constraint
from vgen.training.gan import AdversarialModule, Batch, cut
from vgen.training.sampling import SamplesClips, check_options
from vgen.video import ClipSpec


@dataclass(frozen=True)
class Draw:
    """One random input of a generator.

    Args:
        shape: Of one clip; () is a number.
        law: `normal`: N(0, 1). `uniform`: U(-1, 1). `category`: one of `choices` whole numbers.
        frames: So many of them, one for each frame; None: one for the clip.
        choices: Number of categories.
    """

    shape: tuple[int, ...]
    law: Literal["normal", "uniform", "category"] = "normal"
    frames: int | None = None
    choices: int = 0

    def many(self, n: int, device: torch.device | str | None = None, chance: torch.Generator | None = None) -> Tensor:
        """(n, frames, *shape), without `frames` where there are none."""
        shape = (n, *(() if self.frames is None else (self.frames,)), *self.shape)
        if self.law == "category":
            return torch.randint(self.choices, shape, device=device, generator=chance)
        if self.law == "uniform":
            return torch.rand(shape, device=device, generator=chance) * 2 - 1
        return torch.randn(shape, device=device, generator=chance)

    def of_seed(self, seed: int) -> Tensor:
        """That of one clip, on the CPU: the same frames whatever their number."""
        if self.frames is None:
            return self.many(1, chance=torch.Generator().manual_seed(seed))[0]
        one = Draw(self.shape, self.law, choices=self.choices)
        return torch.stack([one.of_seed(mix(seed, frame)) for frame in range(self.frames)])


class VideoGAN(SamplesClips, AdversarialModule):
    """A generator from noise to clips, against discriminators.

    A subclass names its discriminators, its random inputs (`draws`), and how clips come from them (`clips`), and has
    the two losses. One batch: `critic_steps` steps of the discriminators, each on its own share of the real clips, then
    one of the generator; each step in `micro_batches` parts, over which gradients are averaged and BatchNorm has its
    statistics.

    Validation generates as many clips as there are real ones and logs `val/swd` and `val/diversity`
    (see `ClipStatistics`): for `best.ckpt` and for `CollapseAlarm`.

    Args:
        clip_spec: Clips to generate.
        critic_steps: Steps of the discriminators for one of the generator.
        micro_batches: Parts of each step.
        penalty: Penalty on the gradients of the discriminators.
        constraint: What is done to the discriminators' weights behind their steps.
        optimizer: Optimiser of the generator.
        discriminator_optimizer: Optimiser of the discriminators.
        lr_scheduler: Learning-rate schedule of both.
        lr_interval: Unit of the schedule.
        discriminator_clip: Largest norm of the gradient of each discriminator.
        generator_clip: The same of the generator.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        critic_steps: int = 1,
        micro_batches: int = 1,
        penalty: GradientPenalty | None = None,
        constraint: Constraint | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        discriminator_optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
        discriminator_clip: float | None = None,
        generator_clip: float | None = None,
    ) -> None:
        super().__init__(
            clip_spec, optimizer, discriminator_optimizer, lr_scheduler, lr_interval, discriminator_clip,
            generator_clip, constraint,
        )  # fmt: skip
        for name, value in (("critic_steps", critic_steps), ("micro_batches", micro_batches)):
            if value < 1:
                raise UserError(f"must be at least 1, got {value}", name)
        self.critic_steps, self.micro_batches, self.penalty = critic_steps, micro_batches, penalty
        self._statistics = ClipStatistics()

    # What a subclass says ---------------------------------------------------------------------------------------------

    def draws(self, frames: int) -> Mapping[str, Draw]:
        """The random inputs of clips of so many frames, by name.

        Raises:
            UserError: The generator makes no clips of that length.
        """
        raise NotImplementedError(f"{type(self).__name__} must define draws(frames)")

    def clips(self, latents: Mapping[str, Tensor], conditions: Mapping[str, Any]) -> Tensor:
        """Clips (n, C, T, H, W) in [-1, 1] of random inputs and conditions."""
        raise NotImplementedError(f"{type(self).__name__} must define clips(latents, conditions)")

    def discriminator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the discriminators' loss; `loss` is minimised."""
        raise NotImplementedError(f"{type(self).__name__} must define discriminator_loss(batch)")

    def generator_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the generator's loss; `loss` is minimised."""
        raise NotImplementedError(f"{type(self).__name__} must define generator_loss(batch)")

    def prepare(self, part: Batch) -> Batch:
        """What both losses of a part have in common is added to it here, while everybody's gradients are on."""
        return part

    # Training ---------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """See `VideoModule`.

        Raises:
            UserError: There is no discriminator to train against.
        """
        if stage == "fit" and not self.discriminators:
            raise UserError("nothing judges what the generator makes", "model.init_args", "name its discriminators")
        super().setup(stage)

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Steps of the discriminators, then one of the generator."""
        size = self.micro_batches
        parts = [self.prepare(part) for part in cut(batch, self.critic_steps * size)]
        judged: dict[str, Tensor] = {}
        for first in range(0, len(parts), size):
            last = first + size == len(parts)
            judged |= self.update_discriminators(parts[first : first + size], self.discriminator_loss, last)
        terms = self.update_generator(parts[-size:], self.generator_loss)
        self._log_terms("train", terms | {f"d_{name}": value for name, value in judged.items()}, batch)

    def latents(self, n: int, frames: int | None = None, seeds: list[int] | None = None) -> dict[str, Tensor]:
        """Random inputs of n clips on the device; with seeds, each a function of its clip's seed alone."""
        draws = self.draws(frames or self.clip_spec.frames)
        if seeds is None:
            return {name: draw.many(n, self.device) for name, draw in draws.items()}
        return {name: self._seeded(draws, name, seeds) for name in draws}

    def _seeded(self, draws: Mapping[str, Draw], name: str, seeds: list[int]) -> Tensor:
        place = list(draws).index(name)
        return torch.stack([draws[name].of_seed(mix(seed, place)) for seed in seeds]).to(self.device)

    def judgement(
        self, name: str, real: Tensor, fake: Tensor, said: tuple[Tensor, Tensor], score: Callable[[Tensor], Tensor],
        kind: GANLoss = "vanilla",
    ) -> dict[str, Tensor]:  # fmt: skip
        """Terms of one discriminator: its loss, how often it wins (which is no term), and its penalty.

        A lazy penalty is 0 where it is not due: the loggers would repeat its last value, but not behind a resume.

        Args:
            name: Its name.
            real: Real samples that it has seen.
            fake: Generated ones.
            said: Its scores of both.
            score: Computes them.
            kind: Which loss.
        """
        terms = {name: torch.stack(judgement_losses(*said, kind)).sum(), f"wins_{name}": share_of_wins(*said)}
        if self.penalty is not None and self.training:
            due = (self.discriminator_steps + 1) % self.penalty.every == 0  # so that steps that are logged show it
            value = self.penalty.every * self.penalty(score, real, fake) if due else terms[name].new_zeros(())
            terms[f"penalty_{name}"] = value
        return terms

    @staticmethod
    def total(terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms with their sum `loss`; what begins with `wins` is no term."""
        return {"loss": torch.stack([v for k, v in terms.items() if not k.startswith("wins")]).sum(), **terms}

    # Validation -------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The generator's, which validation and test log."""
        return self.generator_loss(self.prepare(batch))

    def on_validation_epoch_start(self) -> None:
        """Forgets the clips of the last validation."""
        self._statistics = ClipStatistics()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The generator's loss, and clips for the statistics."""
        super().validation_step(batch, batch_idx)
        video = batch["video"][:, :, : self.clip_spec.frames]
        latents = self.latents(len(video), video.shape[2])
        self._statistics.add(video, self.clips(latents, self.conditions(batch)))

    def on_validation_epoch_end(self) -> None:
        """Logs the statistics of all ranks."""
        values = self._statistics.compute(lambda x: self.all_gather(x).reshape(-1, x.shape[1]))  # type: ignore[union-attr]
        self.log_dict({f"val/{name}": value for name, value in values.items()})

    # Sampling ---------------------------------------------------------------------------------------------------------

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Clips (n, C, T, H, W) in [-1, 1]; see `SamplesClips`.

        Options: the name of a random input, whose value is then that of the seed given, in all clips: `content=5` shows
        the content of clip 5 in other motions.
        """
        draws = self.draws(frames)
        latents = self.latents(n, frames, seeds)
        check_options(options, draws, "sample(options=)")
        for name, seed in options.items():
            latents[name] = self._seeded(draws, name, [int(seed)] * n)
        return self.clips(latents, conditions).float()
