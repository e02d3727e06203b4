"""VDM: diffusion of whole clips in pixels (Ho et al. 2022)."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.conditioning import Conditioner
from vgen.diffusion import DDPM, GaussianDiffusion, Sampler
from vgen.models.vdm.networks import Unet3D
from vgen.training import Extension, VideoDiffusion
from vgen.video import ClipSpec


class VDM(VideoDiffusion):
    """Generates clips from noise, and videos of any length by going on behind them.

    Args:
        clip_spec: Clips to generate.
        denoiser: The 3D U-Net.
        conditioner: Class or text encoder; its width is the denoiser's `cond_dim`. None: unconditional.
        diffusion: Schedule, prediction type, loss and threshold.
        sampler: How clips are generated.
        extension: How videos go on behind their first clip.
        images: Pictures that are trained on together with each clip; 8 in the paper.
        null_probability: Share of training clips whose condition is dropped, for classifier-free guidance.
        guidance: Guidance scale of sampling; 1 is none.
        frame_times: Train with a time of its own for every frame; see `VideoDiffusion`.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        denoiser: Unet3D,
        conditioner: Conditioner | None = None,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = DDPM(),  # noqa: B008  (frozen)
        extension: Extension = Extension(),  # noqa: B008  (frozen)
        images: int = 0,
        null_probability: float = 0.0,
        guidance: float = 1.0,
        frame_times: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(
            clip_spec, denoiser, conditioner, diffusion, sampler, extension, images, null_probability, guidance,
            frame_times, optimizer, lr_scheduler, lr_interval,
        )  # fmt: skip
        self._check_denoiser()

    def encode_batch(self, batch: dict[str, Any]) -> Tensor:
        """The pixels."""
        return batch["video"].float()

    def encode_frames(self, video: Tensor) -> Tensor:
        """The pixels."""
        return video.float()

    def decode(self, x0: Tensor, given: int) -> Tensor:
        """The pixels; see `VideoDiffusion`."""
        return x0[:, :, given:].clamp(-1, 1)

    def diffused_shape(self, frames: int) -> tuple[int, ...]:
        """See `VideoDiffusion`."""
        spec = self.clip_spec
        return spec.channels, frames, spec.height, spec.width
