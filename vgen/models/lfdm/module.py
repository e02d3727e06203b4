"""LFDM's second stage: diffusion over sequences of latent flow, conditioned on an image and a class (section 3.2)."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Latent, LatentCache, open_codec
from vgen.conditioning import Conditioner, null_mask
from vgen.diffusion import DDPM, ClipNoise, GaussianDiffusion, Sampler, mixed_noise
from vgen.diffusion.picard import rows
from vgen.errors import UserError
from vgen.models.lfdm.autoencoder_module import LatentFlowAutoencoder
from vgen.models.lfdm.networks import Unet3D
from vgen.models.lfdm.target import FlowTarget
from vgen.training import SamplesClips, SingleLossModule
from vgen.training.caching import cached_latents, on_device
from vgen.video import ClipSpec, Field
from vgen.weights import Handoff


class LFDM(SamplesClips, SingleLossModule):
    """Generates a clip from its first frame and a class: diffused flow and occlusion warp the frame's features.

    Training diffuses the flow of real clips that the frozen auto-encoder estimates; nothing is decoded. Sampling
    denoises a sequence of flow fields, then warps and decodes every frame from the given one, so that no error
    accumulates over time.

    Args:
        clip_spec: Clips to generate.
        denoiser: The 3D U-Net; its input is 3 channels of flow and occlusion, and z0 of the first frame.
        codec: Trained auto-encoder (stage 1).
        conditioner: Class or text encoder; its width is the denoiser's `cond_dim`.
        diffusion: Schedule, prediction type, loss and threshold.
        sampler: How clips are generated; the paper's runs take all 1000 DDPM steps.
        target: Absolute sampling coordinates as published, or residual to the identity grid.
        standardise: Standardise the target's channels and z0 by statistics of the training set.
        statistics_batches: Training batches that the statistics are computed from, on each rank.
        cache_latents: Encode the training set once, at the start; for clips that are the same in every epoch.
        shared_noise: Share of the noise that all frames have in common; 0 in the paper.
        null_probability: Share of training clips whose condition is dropped, for classifier-free guidance.
        guidance: Guidance scale of sampling; 1 is none.
        optimizer: Optimiser of the denoiser (and of a learned condition embedding).
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        denoiser: Unet3D,
        codec: Handoff | nn.Module | None,
        conditioner: Conditioner,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = DDPM(),  # noqa: B008  (frozen)
        target: Literal["absolute", "residual"] = "absolute",
        standardise: bool = False,
        statistics_batches: int = 16,
        cache_latents: bool = False,
        shared_noise: float = 0.0,
        null_probability: float = 0.1,
        guidance: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.denoiser = denoiser
        self.codec = open_codec(codec, "codec")
        self.conditioner = conditioner
        self.conditioner.prepare(clip_spec)
        self.diffusion = diffusion or GaussianDiffusion()
        self.sampler = sampler
        self.target = FlowTarget(target, standardise)
        self.statistics_batches = statistics_batches
        self.cache_latents = cache_latents
        self._cache: LatentCache | None = None
        self.shared_noise = shared_noise
        self.null_probability, self.guidance = null_probability, guidance
        self._check()

    @property
    def autoencoder(self) -> LatentFlowAutoencoder:
        """The frozen first stage."""
        return self.codec.network  # type: ignore[return-value]

    def _check(self) -> None:
        if not isinstance(self.codec.network, LatentFlowAutoencoder):
            raise UserError(f"LFDM needs a LatentFlowAutoencoder, got {type(self.codec.network).__name__}", "codec")
        wanted = 3 + self.autoencoder.network.latent_channels
        if self.denoiser.channels != wanted:
            raise UserError(
                f"the denoiser takes {self.denoiser.channels} channels, but flow, occlusion and z0 are {wanted}",
                "denoiser.channels",
            )
        if self.denoiser.has_cond and self.denoiser.cond_dim != self.conditioner.dim:
            raise UserError(
                f"the denoiser expects a condition of {self.denoiser.cond_dim} numbers, the conditioner gives "
                f"{self.conditioner.dim}",
                "denoiser.cond_dim",
            )
        trained = self.autoencoder.clip_spec
        if (trained.height, trained.width) != (self.clip_spec.height, self.clip_spec.width):
            raise UserError(
                f"the auto-encoder was trained at {trained.height}x{trained.width}, the data is "
                f"{self.clip_spec.height}x{self.clip_spec.width}",
                "data.init_args.size",
            )

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The first frame, and what names the class."""
        return super().conditions(batch) | {"image": batch["video"][:, :, 0]}

    # Training -------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Opens the text model while an error is cheap; caches latents and computes statistics where wanted."""
        self.conditioner.materialize()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.cache_latents:
            self._cache = cached_latents(self, self.codec, self._latents)
        if self.target.standardise and not self.target.fitted:
            batches = islice(data.train_dataloader(), self.statistics_batches)
            self.target.fit(self._latents(on_device(self, batch)) for batch in batches)
            for name in ("mean", "std", "low", "high", "feature_std"):
                buffer = getattr(self.target, name)
                ranks = cast(Tensor, self.all_gather(buffer)).reshape(-1, *buffer.shape)
                buffer.copy_({"low": ranks.amin(0), "high": ranks.amax(0)}.get(name, ranks.mean(0)))

    @torch.no_grad()
    def _latents(self, batch: dict[str, Any]) -> Latent:
        """Flow, occlusion and z0 of a batch, from the cache where there is one."""
        if self._cache is not None and self.training:
            return self._cache(batch["path"], self.device)
        latent = self.autoencoder.encode(batch["video"])
        features = self.autoencoder.features(batch["video"][:, :, 0])
        return {"flow": latent["flow"], "occlusion": latent["occlusion"], "features": features}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Distance between the denoiser's output and its target, at a uniformly drawn step (equation 4).

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1], whose first frame is the reference, and the conditions.
        """
        conditions = self.conditions(batch)
        latent = self._latents(batch)
        features = self.target.scale_features(latent["features"])
        x0 = self.target(latent["flow"], latent["occlusion"])
        n = len(x0)
        t = torch.randint(self.diffusion.steps, (n,), device=x0.device)
        noise = self._mixed(torch.randn(self._drawn(x0.shape), device=x0.device, dtype=x0.dtype))
        mask = null_mask(conditions, n, self.null_probability, device=x0.device)
        output = self.denoiser(
            self.diffusion.q_sample(x0, t, noise), t, self.conditioner(conditions), features, null_mask=mask
        )
        return {"loss": self.diffusion.losses(output, x0, noise, t).mean()}

    def _drawn(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the independent noise that noise of `shape` (B, C, T, h, w) is made of."""
        b, c, t, *sides = shape
        return (b, c, t + 1, *sides) if self.shared_noise else (b, c, t, *sides)

    def _mixed(self, drawn: Tensor) -> Tensor:
        return mixed_noise(drawn, self.shared_noise) if self.shared_noise else drawn

    # Sampling -------------------------------------------------------------------------------------------------------

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Generates clips from `conditions["image"]` (n, C, H, W) in [-1, 1] and a class or text.

        Options: `guidance`, `sampler` (an object), and the fields of the sampler (`steps`, `eta`, ...).
        """
        if "image" not in conditions:
            raise UserError("LFDM generates from a first frame", "image", "give image=..., a path or tensor")
        conditions = {**conditions, "image": conditions["image"].to(self.dtype)}  # of a model in bf16
        flow, occlusion = self.generate_flow(conditions, n, frames, seeds, options)
        return self.autoencoder.decode({"flow": flow, "occlusion": occlusion, "reference": conditions["image"]})

    def generate_flow(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The diffused part alone: flow (n, 2, T, h, w) and occlusion (n, 1, T, h, w)."""
        sampler, scale = self._sampling(options)
        features = self.target.scale_features(self.autoencoder.features(conditions["image"]))
        embedding = self.conditioner(conditions)
        mask = null_mask(conditions, n, device=features.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            cond, fea, without = (rows(each, x) for each in (embedding, features, mask))
            return self.denoiser.forward_with_guidance(x, t, cond, fea, scale=scale, null_mask=without)

        process = self.diffusion
        if self.target.standardise and process.threshold.kind == "clamp":
            bounds = replace(
                process.threshold, low=tuple(self.target.low.tolist()), high=tuple(self.target.high.tolist())
            )
            process = copy.copy(process)  # shares the tables
            process.threshold = bounds
        shape = (n, 3, frames, *features.shape[-2:])
        independent = ClipNoise(seeds, features.device)

        def noise(step: int, shape: Sequence[int]) -> Tensor:
            return self._mixed(independent(step, self._drawn(shape)))

        x0 = sampler.sample(denoise, shape, noise, process)
        return self.target.inverse(x0)

    def _sampling(self, options: dict[str, Any]) -> tuple[Sampler, float]:
        options = dict(options)
        scale = float(options.pop("guidance", self.guidance))
        return self.sampler.chosen(options), scale

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """Real flows decoded by the auto-encoder: what the best possible diffusion model could reach."""
        return self.autoencoder.reconstruct(batch)

    @torch.no_grad()
    def illustrate(self, batch: dict[str, Any], seeds: list[int]) -> dict[str, Tensor | Field]:
        """Generated clips with the flow and the occlusion that were diffused."""
        conditions = self.conditions(batch)
        flow, occlusion = self.generate_flow(conditions, len(seeds), self.clip_spec.frames, seeds, {})
        latent = {"flow": flow, "occlusion": occlusion, "reference": conditions["image"]}
        return {"generated": self.autoencoder.decode(latent), **self.autoencoder.fields(flow, occlusion)}
