"""VIDM's first stage: the content generator, a diffusion model of single frames (section 3.1)."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.diffusion import ClipNoise, GaussianDiffusion, RespacedDDPM, Sampler
from vgen.errors import UserError
from vgen.models.vidm.networks import ContentGenerator, MotionGenerator
from vgen.training import SamplesClips, SingleLossModule
from vgen.video import ClipSpec, frame_of_each


def check_outputs(network: ContentGenerator | MotionGenerator, diffusion: GaussianDiffusion) -> None:
    """A learned variance needs output channels of its own, another one none.

    Raises:
        UserError: The network has too few or too many.
    """
    channels = network.channels * (2 if diffusion.learns_variance else 1)
    if network.unet.out_channels != channels:
        raise UserError(
            f"variance {diffusion.variance} needs {channels} output channels, the network has "
            f"{network.unet.out_channels}",
            "network.learned_variance",
        )


class VIDMContent(SamplesClips, SingleLossModule):
    """Generates single frames, which the motion generator then animates.

    As in the paper: Charbonnier loss (`diffusion.loss_type`) in place of dropout, and a learned constant beside the
    noisy frame. Not released by the authors, so without numbers to compare with.

    Args:
        clip_spec: Clips to learn from; every training step takes one random frame of each.
        network: The denoiser.
        diffusion: Schedule, prediction, loss and variance.
        sampler: How frames are generated.
        optimizer: Optimiser of the denoiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: ContentGenerator,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = RespacedDDPM("ddim100"),  # noqa: B008  (frozen)
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.network = network
        self.diffusion = diffusion or GaussianDiffusion(variance="learned_range")
        self.sampler = sampler
        check_outputs(network, self.diffusion)
        if network.constant is not None and tuple(network.size) != (clip_spec.height, clip_spec.width):
            raise UserError(
                f"the learned constant is {network.size[0]}x{network.size[1]}, the frames are "
                f"{clip_spec.height}x{clip_spec.width}",
                "network.size",
            )

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss of one random frame of every clip (B, C, T, H, W)."""
        video = batch["video"]
        n = torch.randint(video.shape[2], (len(video),), device=video.device)
        x0 = frame_of_each(video, n)
        t = torch.randint(self.diffusion.steps, (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        terms = self.diffusion.terms(self.network(self.diffusion.q_sample(x0, t, noise), t), x0, noise, t)
        return {name: value.mean() for name, value in terms.items()}

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Still clips (n, C, frames, H, W): a generated frame, repeated. Options: the sampler's fields."""
        return self.frames(n, seeds, options)[:, :, None].expand(-1, -1, frames, -1, -1)

    @torch.no_grad()
    def frames(self, n: int, seeds: list[int], options: dict[str, Any] | None = None) -> Tensor:
        """Generated frames (n, C, H, W) in [-1, 1]."""
        sampler = self.sampler.chosen(options or {})
        shape = (n, self.network.channels, self.clip_spec.height, self.clip_spec.width)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.network(x.to(self.dtype), t if sampler.parallel else t[:1])

        return sampler.sample(denoise, shape, ClipNoise(seeds, self.device), self.diffusion)
