"""VIDM's second stage: the motion generator, which makes a clip frame by frame from its first (section 3.2)."""

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.codecs import Companion
from vgen.diffusion import ClipNoise, GaussianDiffusion, RespacedDDPM, Sampler
from vgen.diffusion.noise import ConditionNoise, NoiseSource, mix
from vgen.diffusion.picard import rows
from vgen.errors import UserError
from vgen.models.vidm.content_module import VIDMContent, check_outputs
from vgen.models.vidm.networks import MotionGenerator
from vgen.models.vidm.weights import read_spynet
from vgen.training import SamplesClips, SingleLossModule
from vgen.video import ClipSpec, frame_of_each
from vgen.weights import Handoff

_MOTION = -1  # stands for a step in seeds: no step of the content generator


class VIDMMotion(SamplesClips, SingleLossModule):
    """Generates clips autoregressively: a diffusion of frame n, given the first frame and the one before.

    Where released code and paper differ, or the released script is mistaken, an option says which: `released` trains
    frames 1..T-2 and generates frame 0 anew; otherwise all frames but the first are trained, and frame 0 stays.

    Args:
        clip_spec: Clips to generate.
        network: The denoiser.
        content: Trained content generator, for sampling without a first frame: a companion, which training never opens.
        diffusion: Schedule, prediction, loss and variance. Released code: P2-weighted squared error and learned range;
            paper: Charbonnier.
        sampler: How a frame is generated. Released: 100 ancestral steps, ddim100.
        flow_weights: Pretrained weights of the motion condition's network, official or converted; for training.
        freeze_flow: Leave that network as it is. The release trains it along, the paper calls it pretrained.
        released: See above.
        previous_noise: Noise on the previous frame in training, against drift; None in paper and release.
        optimizer: Optimiser of the denoiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    training_only: ClassVar[tuple[str, ...]] = ("flow_weights",)

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: MotionGenerator,
        content: Handoff | None = None,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = RespacedDDPM("ddim100"),  # noqa: B008  (frozen)
        flow_weights: str | None = None,
        freeze_flow: bool = False,
        released: bool = False,
        previous_noise: ConditionNoise | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.network = network
        self.content = Companion(content) if content is not None else None
        self.diffusion = diffusion or GaussianDiffusion("linear", variance="learned_range")
        self.sampler, self.released, self.previous_noise = sampler, released, previous_noise
        self._check()
        if network.flow is not None:
            if flow_weights is not None:
                read_spynet(network.flow, flow_weights)
            network.flow.requires_grad_(not freeze_flow)

    def _check(self) -> None:
        check_outputs(self.network, self.diffusion)
        if self.clip_spec.frames > self.network.video_timesteps:
            raise UserError(
                f"clips have {self.clip_spec.frames} frames, the network counts to {self.network.video_timesteps}",
                "network.layout.video_timesteps",
            )
        if self.clip_spec.frames < 2 + self.released:
            raise UserError("there is no frame to learn besides the first", "data.init_args.frames")

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The first frame, where it is not to come from the content generator."""
        return super().conditions(batch) | {"image": batch["video"][:, :, 0]}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of one frame of every clip (B, C, T, H, W), drawn uniformly, with the true frame before it."""
        video = batch["video"]
        n = torch.randint(1, video.shape[2] - self.released, (len(video),), device=video.device)
        first, previous, x0 = video[:, :, 0], frame_of_each(video, n - 1), frame_of_each(video, n)
        if self.previous_noise is not None and self.training:
            previous, _ = self.previous_noise(previous)
        t = torch.randint(self.diffusion.steps, (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        motion = self.network.motion(first, previous)
        output = self.network(self.diffusion.q_sample(x0, t, noise), t, n, first, motion)
        terms = self.diffusion.terms(output, x0, noise, t)
        return {name: value.mean() for name, value in terms.items()}

    # Sampling -------------------------------------------------------------------------------------------------------

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Generates clips from `conditions["image"]` (n, C, H, W) in [-1, 1], or from generated first frames.

        Options: `sampler` (an object), and the fields of the sampler.
        """
        sampler = self.sampler.chosen(options)
        if frames > self.network.video_timesteps:
            raise UserError(
                f"the network was made for {self.network.video_timesteps} frames, not {frames}", "sample(frames=)"
            )
        first = conditions["image"].to(self.dtype) if "image" in conditions else self._first(n, seeds)
        # numbers of their own: the content generator counts its steps from 0 with the clips' seeds
        noise = ClipNoise([mix(seed, _MOTION) for seed in seeds], self.device)
        stride = sampler.calls(self.diffusion) + 1
        clip = [] if self.released else [first]
        while len(clip) < frames:
            previous = clip[-1] if clip else first
            clip.append(self._frame(len(clip), first, previous, sampler, _from(noise, len(clip) * stride)))
        return torch.stack(clip, dim=2).float()

    def _frame(self, index: int, first: Tensor, previous: Tensor, sampler: Sampler, noise: NoiseSource) -> Tensor:
        """One frame; the flow is estimated once for all its steps, and its position once for the batch."""
        motion = self.network.motion(first, previous)
        n = torch.full((1,), index, device=first.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            flow = None if motion is None else rows(motion, x)
            return self.network(x.to(first.dtype), t if sampler.parallel else t[:1], n, rows(first, x), flow)

        return sampler.sample(denoise, tuple(first.shape), noise, self.diffusion).to(first.dtype)

    def _first(self, n: int, seeds: list[int]) -> Tensor:
        if self.content is None:
            raise UserError(
                "VIDM's motion generator begins with a first frame", "image", "give image=..., or a content generator"
            )
        content = self.content.open(self.device)
        if not isinstance(content, VIDMContent):
            raise UserError(f"the content generator is a {type(content).__name__}, not VIDMContent", "content")
        return content.frames(n, seeds).to(self.dtype)


def _from(noise: NoiseSource, offset: int) -> NoiseSource:
    """Noise whose steps are counted from `offset`, so that no two frames share any."""
    return lambda step, shape: noise(offset + step, shape)
