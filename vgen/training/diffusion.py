"""The base of models that diffuse a clip, in pixels or in a latent: loss, sampling, and going on behind a clip."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.conditioning import Conditioner, null_mask
from vgen.diffusion import DDPM, ClipNoise, Extended, GaussianDiffusion, Sampler, guided
from vgen.diffusion.guidance import per_frame
from vgen.diffusion.noise import mix
from vgen.diffusion.picard import rows
from vgen.diffusion.time_sampling import frame_times
from vgen.errors import UserError
from vgen.nn.unet3d import FactorisedUnet3D
from vgen.training.base import SingleLossModule
from vgen.training.sampling import StreamsClips
from vgen.video import ClipSpec

_GIVEN = -1  # stands for a step in seeds: the noise of given frames is no step of a sampler


@dataclass(frozen=True)
class Extension:
    """How a video goes on behind its first clip (Ho et al. 2022, section 3.1).

    Args:
        context: Frames (of the diffused tensor) at the end of a clip that the next one is given; None: half of them.
        weight: w_r of reconstruction guidance; 0: given frames are replaced alone, and the rest hardly fits them.
        steps: Sampler steps of all clips but the first; None: as many ("400/400": steps 400 and 400).
    """

    context: int | None = None
    weight: float = 2.0
    steps: int | None = None


@dataclass(frozen=True)
class _Plan:
    """What one call samples with."""

    sampler: Sampler
    later: Sampler
    guidance: float
    guidance_last: float | None
    context: int
    weight: float


class VideoDiffusion(StreamsClips, SingleLossModule):
    """Diffuses clips as a whole; longer videos are made clip by clip, each given the end of the one before.

    A subclass says what is diffused: `encode_batch`, `decode` and `diffused_shape`.

    Args:
        clip_spec: Clips to generate.
        denoiser: A network of noisy (B, C, T, h, w), as `vgen.diffusion.guided` describes it.
        conditioner: Class or text encoder, where the denoiser takes a condition.
        diffusion: Schedule, prediction type, loss and threshold.
        sampler: How clips are generated.
        extension: How videos go on behind their first clip.
        images: Pictures that are trained on together with each clip (Ho et al. 2022, section 3.2): random frames of
            other clips of the batch, which temporal attention keeps apart.
        null_probability: Share of training clips whose condition is dropped, for classifier-free guidance.
        guidance: Guidance scale of sampling; 1 is none.
        frame_times: Train with a time of its own for every frame (diffusion forcing). Given frames are then shown to
            the denoiser as they are, at time 0, and `Extension.weight` plays no part.
        optimizer: Optimiser of the denoiser (and of a learned condition embedding).
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        denoiser: nn.Module,
        conditioner: Conditioner | None = None,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = DDPM(),  # noqa: B008  (frozen)
        extension: Extension = Extension(),
        images: int = 0,
        null_probability: float = 0.0,
        guidance: float = 1.0,
        frame_times: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.denoiser: Any = denoiser
        self.conditioner = conditioner
        if conditioner is not None:
            conditioner.prepare(clip_spec)
        self.diffusion = diffusion or GaussianDiffusion()
        self.sampler, self.extension = sampler, extension
        self.images, self.null_probability, self.guidance = images, null_probability, guidance
        self.frame_times = frame_times
        dim = None if conditioner is None else conditioner.dim
        if dim != (self.denoiser.cond_dim if self.denoiser.has_cond else None):
            takes = f"{self.denoiser.cond_dim} numbers" if self.denoiser.has_cond else "none"
            gives = "there is no conditioner" if dim is None else f"the conditioner gives {dim}"
            raise UserError(f"the denoiser takes a condition of {takes}, but {gives}", "conditioner")

    def _check_denoiser(self) -> None:
        """Refuses a denoiser that does not fit the diffused tensor; for the constructor of a subclass."""
        channels, _, *sides = self.diffused_shape(self.clip_spec.frames)
        if (self.denoiser.channels, self.denoiser.out_channels) != (channels, channels):
            raise UserError(
                f"the denoiser turns {self.denoiser.channels} channels into {self.denoiser.out_channels}, but "
                f"{channels} are diffused",
                "denoiser.channels",
            )
        if self.frame_times and not isinstance(self.denoiser, FactorisedUnet3D):
            raise UserError(f"{type(self.denoiser).__name__} is told one time for all frames", "frame_times")
        if any(side % self.denoiser.side_multiple for side in sides):
            size = "x".join(map(str, sides))
            raise UserError(
                f"{size} cannot be halved as often as the denoiser does: sides must be multiples of "
                f"{self.denoiser.side_multiple}",
                "data.init_args.size",
                "fewer levels, or another data size",
            )

    # What a subclass says -------------------------------------------------------------------------------------------

    def encode_batch(self, batch: dict[str, Any]) -> Tensor:
        """What is diffused of a training batch: (B, c, t, h, w)."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_batch(batch)")

    def encode_frames(self, video: Tensor) -> Tensor:
        """What is diffused of the first frames of clips, (n, C, T, H, W) in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_frames(video)")

    def decode(self, x0: Tensor, given: int) -> Tensor:
        """The video (n, C, T, H, W) in [-1, 1] of the diffused frames behind the first `given` of x0."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(x0, given)")

    def diffused_shape(self, frames: int) -> tuple[int, ...]:
        """(c, t, h, w) of what is diffused for a clip of so many frames."""
        raise NotImplementedError(f"{type(self).__name__} must define diffused_shape(frames)")

    # Training -------------------------------------------------------------------------------------------------------

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What names the class, where there is a conditioner; nothing else."""
        return {} if self.conditioner is None else super().conditions(batch)

    def on_fit_start(self) -> None:
        """Opens the text model while an error is cheap."""
        if self.conditioner is not None:
            self.conditioner.materialize()

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Distance between the denoiser's output and its target, at a uniformly drawn step (of each frame).

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1], and the conditions.
        """
        x0 = self.encode_batch(batch)
        n = len(x0)
        inputs = self._condition(self.conditions(batch), n, self.null_probability)
        if self.images:
            x0, inputs = self._with_images(x0, inputs)
        if self.frame_times:
            t = frame_times(n, x0.shape[2], self.diffusion.steps, x0.device)
        else:
            t = torch.randint(self.diffusion.steps, (n,), device=x0.device)
        noise = torch.randn_like(x0)
        output = self.denoiser(self.diffusion.q_sample(x0, t, noise), t, **inputs)
        return {"loss": self.diffusion.losses(output, x0, noise, t).mean()}

    def _condition(self, conditions: dict[str, Any], n: int, drop: float = 0.0) -> dict[str, Tensor]:
        """The denoiser's inputs that stand for the condition; none without a conditioner."""
        if self.conditioner is None:
            return {}
        mask = null_mask(conditions, n, drop, device=self.device)
        return {"cond": self.conditioner(conditions), "null_mask": mask}

    def _with_images(self, x0: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Appends pictures to the clips, and their conditions to the clips' own."""
        n, count, length = len(x0), self.images, x0.shape[2]
        own = torch.arange(n, device=x0.device)[:, None]
        others = (own + 1 + torch.randint(max(1, n - 1), (n, count), device=x0.device)) % n
        frames = torch.randint(length, (n, count), device=x0.device)
        pictures = x0[others, :, frames].transpose(1, 2)
        owner = torch.cat((own.expand(-1, length), others), dim=1)
        joined: dict[str, Any] = {name: value[owner] for name, value in inputs.items()}
        return torch.cat((x0, pictures), dim=2), {**joined, "images": count}

    # Sampling -------------------------------------------------------------------------------------------------------

    def generate_pieces(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int,
        seeds: list[int],
        options: dict[str, Any],
        state: dict[str, Tensor],
    ) -> Iterator[Tensor]:
        """Generates clip after clip, each given the last `context` diffused frames of the one before.

        The first clip is given `conditions["image"]` (n, C, H, W) as its first frame, where that is there. Options:
        `guidance`, `guidance_last` (of the last frame, up to which the scale is linear), `sampler` (an object), the
        fields of the sampler (`steps`, `eta`, ...), and of `Extension` `context`, `reconstruction` (its weight) and
        `next_steps` (its steps).
        """
        plan = self._plan(options)
        inputs = self._condition(conditions, n)
        length = self.diffused_shape(self.clip_spec.frames)[1]
        if frames > self.clip_spec.frames and not 0 < plan.context < length:
            raise UserError(f"a clip of {length} diffused frames cannot go on behind {plan.context} of them", "context")
        done, number = int(state.get("frames", torch.zeros(()))), int(state.get("pieces", torch.zeros(())))
        while done < frames:
            if number:
                given: Tensor | None = state["given"].to(self.device)
            else:
                image = conditions.get("image")
                given = None if image is None else self.encode_frames(image.to(self.dtype)[:, :, None])
            noise = [mix(seed, number) for seed in seeds] if number else seeds
            x0 = self._clip(inputs, noise, given, plan.later if number else plan.sampler, plan)
            video = self.decode(x0, plan.context if number else 0)[:, :, : frames - done]
            done, number = done + video.shape[2], number + 1
            state["given"] = x0[:, :, -plan.context :].cpu()
            state["frames"], state["pieces"] = torch.tensor(done), torch.tensor(number)
            yield video

    def _clip(
        self, inputs: dict[str, Tensor], seeds: Sequence[int], given: Tensor | None, sampler: Sampler, plan: _Plan
    ) -> Tensor:
        """One clip of each seed (n, c, t, h, w), whose first frames may be given."""
        shape = (len(seeds), *self.diffused_shape(self.clip_spec.frames))
        scale: float | Tensor = plan.guidance
        if plan.guidance_last is not None:
            scale = per_frame(plan.guidance, plan.guidance_last, shape[2], self.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return guided(self.denoiser, x, t, scale=scale, **{name: rows(value, x) for name, value in inputs.items()})

        def beside_given(x: Tensor, t: Tensor) -> Tensor:
            """Given frames as they are, at time 0."""
            known = rows(cast(Tensor, given), x).to(x)
            times = t[:, None].repeat(1, x.shape[2])
            times[:, : known.shape[2]] = 0
            return denoise(torch.cat((known, x[:, :, known.shape[2] :]), dim=2), times)

        wanted: Callable[[Tensor, Tensor], Tensor] = denoise
        if given is not None and self.frame_times:
            wanted = beside_given
        elif given is not None:
            if sampler.parallel:
                raise UserError("parallel sampling goes on behind given frames with frame_times alone", "sampler")
            first, noise = given.float(), ClipNoise([mix(seed, _GIVEN) for seed in seeds], self.device)
            wanted = Extended(denoise, self.diffusion, first, plan.weight, lambda t: noise(t, first.shape))
        x0 = sampler.sample(wanted, shape, ClipNoise(seeds, self.device), self.diffusion)
        return x0 if given is None else torch.cat((given.to(x0), x0[:, :, given.shape[2] :]), dim=2)

    def _plan(self, options: dict[str, Any]) -> _Plan:
        options = dict(options)
        guidance = float(options.pop("guidance", self.guidance))
        last = options.pop("guidance_last", None)
        named = {"context": "context", "reconstruction": "weight", "next_steps": "steps"}
        changes = {named[name]: options.pop(name) for name in list(options) if name in named}
        extension = replace(self.extension, **changes)
        sampler = self.sampler.chosen(options)
        length = self.diffused_shape(self.clip_spec.frames)[1]
        context = math.ceil(length / 2) if extension.context is None else extension.context
        later = sampler if extension.steps is None else sampler.changed({"steps": extension.steps})
        return _Plan(sampler, later, guidance, None if last is None else float(last), context, float(extension.weight))
