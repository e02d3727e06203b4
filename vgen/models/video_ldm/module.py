"""Latent video diffusion: a 3D U-Net over the latents of a frozen auto-encoder (Rombach et al., He et al. 2022)."""

from itertools import islice
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Latent, LatentCache, LatentScaling, open_codec
from vgen.conditioning import Conditioner
from vgen.diffusion import DDPM, GaussianDiffusion, Sampler
from vgen.errors import UserError
from vgen.models.video_ldm.autoencoder_module import VideoAutoencoder
from vgen.training import Extension, VideoDiffusion
from vgen.training.caching import cached_latents, on_device
from vgen.video import ClipSpec
from vgen.weights import Handoff


class VideoLDM(VideoDiffusion):
    """Generates latents from noise and decodes them; longer videos go on in the latent.

    Args:
        clip_spec: Clips to generate.
        denoiser: The 3D U-Net: `LVDMUnet`, or one with the interface of `vgen.nn.unet3d.FactorisedUnet3D`.
        codec: Trained auto-encoder (stage 1).
        conditioner: Class or text encoder; its width is the denoiser's `cond_dim`. None: unconditional.
        diffusion: Schedule, prediction type, loss and threshold.
        sampler: How clips are generated.
        extension: How videos go on behind their first clip; its context counts frames of the latent.
        latent_scale: Factor of the latent; None: every channel gets mean 0 and variance 1 over the training set.
        latent_shift: Added to the latent before.
        statistics_batches: Training batches that the statistics are computed from, on each rank.
        cache_latents: Encode the training set once, at the start; for clips that are the same in every epoch.
        images: Pictures that are trained on together with each clip, as in VDM; with auto-encoders of single frames.
        null_probability: Share of training clips whose condition is dropped, for classifier-free guidance.
        guidance: Guidance scale of sampling; 1 is none.
        frame_times: Train with a time of its own for every frame; see `VideoDiffusion`.
        optimizer: Optimiser of the denoiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        denoiser: nn.Module,
        codec: Handoff | nn.Module | None,
        conditioner: Conditioner | None = None,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = DDPM(),  # noqa: B008  (frozen)
        extension: Extension = Extension(),  # noqa: B008  (frozen)
        latent_scale: float | None = None,
        latent_shift: float = 0.0,
        statistics_batches: int = 16,
        cache_latents: bool = False,
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
        self.codec = open_codec(codec, "codec")
        if not isinstance(self.codec.network, VideoAutoencoder):
            raise UserError(f"VideoLDM needs a VideoAutoencoder, got {type(self.codec.network).__name__}", "codec")
        if images and self.time_factor > 1:
            raise UserError("a latent of several frames holds no single pictures", "images", "set images: 0")
        self.scaling = LatentScaling(self.diffused_shape(clip_spec.frames)[0], latent_scale, latent_shift)
        self.statistics_batches, self.cache_latents = statistics_batches, cache_latents
        self._cache: LatentCache | None = None
        self._check_denoiser()

    @property
    def autoencoder(self) -> VideoAutoencoder:
        """The frozen first stage."""
        return cast(VideoAutoencoder, self.codec.network)

    @property
    def time_factor(self) -> int:
        """Frames of the video in a frame of the latent."""
        return int(self.autoencoder.network.factors[0])

    def on_fit_start(self) -> None:
        """Opens the text model while an error is cheap; caches latents and computes statistics where wanted."""
        super().on_fit_start()
        if self.cache_latents:
            self._cache = cached_latents(self, self.codec, self._latents)
        if not self.scaling.fitted:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            batches = islice(data.train_dataloader(), self.statistics_batches)
            latents = (self._latents(on_device(self, batch))["z"] for batch in batches)
            self.scaling.fit(latents, lambda sums: cast(Tensor, self.all_gather(sums)).reshape(-1, *sums.shape).sum(0))

    @torch.no_grad()
    def _latents(self, batch: dict[str, Any]) -> Latent:
        """Latents of a batch, from the cache where there is one."""
        if self._cache is not None and self.training:
            return self._cache(batch["path"], self.device)
        return self.autoencoder.encode(batch["video"])

    def encode_batch(self, batch: dict[str, Any]) -> Tensor:
        """See `VideoDiffusion`."""
        return self.scaling(self._latents(batch)["z"])

    def encode_frames(self, video: Tensor) -> Tensor:
        """See `VideoDiffusion`; for auto-encoders of single frames, or as many frames as a latent's holds."""
        return self.scaling(self.autoencoder.encode(video)["z"])

    def decode(self, x0: Tensor, given: int) -> Tensor:
        """See `VideoDiffusion`. A decoder of clips sees the given frames too, so that there is no seam."""
        if self.time_factor == 1:
            x0, given = x0[:, :, given:], 0
        return self.autoencoder.decode({"z": self.scaling.inverse(x0)})[:, :, given * self.time_factor :]

    def diffused_shape(self, frames: int) -> tuple[int, ...]:
        """See `VideoDiffusion`."""
        spec = self.clip_spec
        size = ClipSpec(frames, spec.height, spec.width, spec.channels)
        return self.autoencoder.latent_spec(size)["z"]

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """The clips through the auto-encoder: what the best possible diffusion model could reach."""
        return self.autoencoder.reconstruct(batch)
