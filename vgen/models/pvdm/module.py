"""PVDM's second stage: diffusion of the planes of a clip, alone or given those of the clip before (section 3.2)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Latent, LatentCache, open_codec
from vgen.diffusion import DDIM, ClipNoise, GaussianDiffusion, Sampler, classifier_free
from vgen.diffusion.noise import mix
from vgen.diffusion.picard import rows
from vgen.errors import UserError
from vgen.models.pvdm.autoencoder_module import PlaneAutoencoder
from vgen.models.pvdm.networks import PlaneUNet
from vgen.models.pvdm.planes import join
from vgen.training import SingleLossModule, StreamsClips
from vgen.training.caching import cached_latents
from vgen.video import ClipSpec
from vgen.weights import Handoff


class PVDM(StreamsClips, SingleLossModule):
    """Generates videos of any length without conditions, clip by clip.

    One network learns p(z) and p(z | z of the clip before), by leaving the condition out (zeros). Training clips have
    the frames of two of the autoencoder's. With probability lambda the first half is the condition and the second the
    target; otherwise the target is any window of that length. Where the first half is black (shorter videos, see the
    sampling `zero_first_half` of the data), there is no condition, and the target is the second half.

    A video's first clip is sampled alone, every further one given the latent that was sampled before it. Only that
    latent is kept, so that memory does not grow with the length.

    Args:
        clip_spec: Clips to train on: twice the autoencoder's frames, or exactly these for a network without condition.
            Classes of the data are not used.
        denoiser: The U-Net.
        codec: The trained autoencoder.
        diffusion: Schedule, prediction type, loss and threshold; default the released one.
        sampler: How clips are generated.
        conditional_probability: lambda (equation 8).
        decided_by: Whether one draw decides for the whole batch of a rank, as in the release, or each clip has its own.
        window_stride: Frames between the windows that a target may begin at; 1: anywhere. It divides the
            autoencoder's frames.
        cache_latents: Encode all windows of the training set once, at the start; for clips that are the same in every
            epoch (sampling `chunks`, say). A larger `window_stride` keeps their number small.
        next_steps: Sampler steps of clips that follow another, where they are to be fewer ("100/20-s" in the paper).
        guidance: Scale of classifier-free guidance for clips that follow another; 1 is none, and costs nothing.
        optimizer: Optimiser of the U-Net.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        denoiser: PlaneUNet,
        codec: Handoff | nn.Module | None,
        diffusion: GaussianDiffusion | None = None,
        sampler: Sampler = DDIM(400, 1.0, "pvdm"),  # noqa: B008  (keeps no state)
        conditional_probability: float = 0.3,
        decided_by: Literal["batch", "clip"] = "batch",
        window_stride: int = 1,
        cache_latents: bool = False,
        next_steps: int | None = None,
        guidance: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(replace(clip_spec, class_names=(), condition_keys=()), optimizer, lr_scheduler, lr_interval)
        self.denoiser = denoiser
        self.codec = open_codec(codec, "codec")
        self.diffusion = diffusion or GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0195))
        self.sampler, self.next_steps, self.guidance = sampler, next_steps, guidance
        self.conditional_probability, self.decided_by = conditional_probability, decided_by
        self.window_stride, self.cache_latents = window_stride, cache_latents
        self._cache: LatentCache | None = None
        self._check()

    @property
    def autoencoder(self) -> PlaneAutoencoder:
        """The frozen first stage."""
        return self.codec.network  # type: ignore[return-value]

    def _check(self) -> None:
        if not isinstance(self.codec.network, PlaneAutoencoder):
            raise UserError(f"PVDM needs a PlaneAutoencoder, got {type(self.codec.network).__name__}", "codec")
        first, here = self.autoencoder.clip_spec, self.clip_spec
        if (first.height, first.width) != (here.height, here.width):
            what = (
                f"the autoencoder was trained at {first.height}x{first.width}, the data is {here.height}x{here.width}"
            )
            raise UserError(what, "data.init_args.size")
        wanted = first.frames * (2 if self.denoiser.conditional else 1)
        if here.frames != wanted:
            kind = "two clips" if self.denoiser.conditional else "one clip"
            what = f"training takes {kind} of the autoencoder's {first.frames} frames, not {here.frames} frames"
            raise UserError(what, "data.init_args.frames", f"use {wanted}, or denoiser.conditional: false")
        channels = self.autoencoder.network.latent_channels
        if {self.denoiser.in_channels, self.denoiser.out_channels} != {channels}:
            what = f"the denoiser maps {self.denoiser.in_channels} to {self.denoiser.out_channels} channels"
            raise UserError(f"{what}, but planes have {channels}", "denoiser.in_channels")
        self.denoiser.check_sides(self.autoencoder.grid.shapes)
        if self.window_stride < 1 or first.frames % self.window_stride:
            what = f"windows {self.window_stride} frames apart do not divide a clip of {first.frames}"
            raise UserError(what, "window_stride")
        if not 0 <= self.conditional_probability <= 1:
            raise UserError(f"{self.conditional_probability} is no probability", "conditional_probability")

    # Training ---------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Caches latents where that is wanted."""
        if self.cache_latents:
            self._cache = cached_latents(self, self.codec, self._windows, window_stride=self.window_stride)

    @torch.no_grad()
    def _encode(self, video: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) of the autoencoder's length as flat latents (B, c, L), fp32."""
        return join(self.autoencoder.encode(video)).float()

    def _windows(self, batch: dict[str, Any]) -> Latent:
        """Latents of all windows of each clip that a target may be: `windows` (B, S, c, L)."""
        video, frames = batch["video"], self.autoencoder.clip_spec.frames
        starts = range(0, video.shape[2] - frames + 1, self.window_stride)
        return {"windows": torch.stack([self._encode(video[:, :, s : s + frames]) for s in starts], dim=1)}

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        """For n clips: whether the first half is the condition, and else the number of the target's window.

        On the CPU, so that nothing has to wait for the device.
        """
        draws = 1 if self.decided_by == "batch" else n
        places = self.autoencoder.clip_spec.frames // self.window_stride + 1
        conditional = torch.rand(draws) < self.conditional_probability
        return conditional.expand(n), torch.randint(places, (draws,)).expand(n)

    @torch.no_grad()
    def _latents(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Target (B, c, L), and condition of the same shape, zeros where there is none; None: nowhere is one."""
        video, frames = batch["video"], self.autoencoder.clip_spec.frames
        cache = self._cache if self.training else None
        clips = torch.arange(len(video), device=video.device)
        if not self.denoiser.conditional:
            return (cache(batch["path"], self.device)["windows"][:, 0] if cache else self._encode(video)), None
        conditional, place = self._draw(len(video))
        last = frames // self.window_stride
        chosen = torch.where(conditional, last, place).to(video.device, non_blocking=True)
        if cache is not None:
            windows = cache(batch["path"], self.device)["windows"]
            given = conditional.to(video.device, non_blocking=True)[:, None, None]
            return windows[clips, chosen], windows[:, 0] * given if conditional.any() else None
        first = video[:, :, :frames]
        black = (first == -1).flatten(1).all(1)
        start = torch.where(black, frames, chosen * self.window_stride)
        index = start[:, None] + torch.arange(frames, device=video.device)
        target = self._encode(video[clips[:, None], :, index].transpose(1, 2))  # indexed (B, T, C, H, W)
        if not conditional.any():
            return target, None
        which = conditional.nonzero()[:, 0].to(video.device, non_blocking=True)
        condition = torch.zeros_like(target)
        condition[which] = self._encode(first[which])
        return target, condition * ~black[:, None, None]

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Distance of the U-Net's output from its target at a uniformly drawn step (equations 6 to 8).

        `vlb` is the variational bound's weighting of it, which the release logs.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1] with the T of `clip_spec`.
        """
        x0, condition = self._latents(batch)
        t = torch.randint(self.diffusion.steps, (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        output = self._predict(self.diffusion.q_sample(x0, t, noise), t, condition)
        each = self.diffusion.losses(output, x0, noise, t)
        vlb = (each.detach() * self.diffusion.schedule.vlb_weights[t]).mean()
        return {"loss": each.mean(), "vlb": vlb}

    def _predict(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The U-Net on flat latents (B, c, L)."""
        split = self.autoencoder.grid.split
        given = None if condition is None else split(condition)
        return join(self.denoiser(split(x.to(self.dtype)), t, given))

    # Sampling ---------------------------------------------------------------------------------------------------------

    def generate_pieces(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int,
        seeds: list[int],
        options: dict[str, Any],
        state: dict[str, Tensor],
    ) -> Iterator[Tensor]:
        """Generates clip after clip; there are no conditions. Only the latent of the last clip is kept.

        Options: `guidance`, `next_steps`, `sampler` (an object), and the fields of the sampler (`steps`, `eta`, ...).
        """
        if conditions:
            raise UserError(f"PVDM generates without conditions, not from {', '.join(conditions)}", "sample()")
        own = self.autoencoder.clip_spec.frames
        if frames > own and not self.denoiser.conditional:
            what = f"the model was trained without a condition and makes clips of {own} frames, not {frames}"
            raise UserError(what, "frames", f"use at most {own}, or train with denoiser.conditional: true")
        options = dict(options)
        scale = float(options.pop("guidance", self.guidance))
        next_steps = options.pop("next_steps", self.next_steps)
        first = self.sampler.chosen(options)
        later = first if next_steps is None else first.changed({"steps": next_steps})
        for piece in range(int(state.get("pieces", torch.zeros(()))), -(-frames // own)):
            previous = state["latent"].to(self.device) if piece else None
            noise = [mix(seed, piece) for seed in seeds] if piece else seeds
            latent = self._sample_latent(later if piece else first, scale, previous, noise)
            state["latent"], state["pieces"] = latent.cpu(), torch.tensor(piece + 1)
            planes = self.autoencoder.grid.split(latent.to(self.dtype))
            yield self.autoencoder.decode(planes)[:, :, : frames - piece * own]

    def _sample_latent(self, sampler: Sampler, scale: float, previous: Tensor | None, seeds: list[int]) -> Tensor:
        """The flat latents (n, c, L) of clips, given those of the clips before them."""
        network, grid = self.autoencoder.network, self.autoencoder.grid

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            given = None if previous is None else rows(previous, x)
            if given is None or scale == 1:
                return self._predict(x, t, given)
            both = torch.cat((given, torch.zeros_like(given)))
            with_clip, without = self._predict(torch.cat((x, x)), torch.cat((t, t)), both).chunk(2)
            return classifier_free(with_clip, without, scale)

        shape = (len(seeds), network.latent_channels, grid.tokens)
        return sampler.sample(denoise, shape, ClipNoise(seeds, self.device), self.diffusion)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """What the autoencoder makes of real clips: the best that the diffusion model could reach."""
        return self.autoencoder.reconstruct(batch)
