"""VideoGPT's second stage: a transformer over the codes of the VQ-VAE (Yan et al. 2021, section 3.2)."""

from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.models.videogpt.networks import CodeTransformer, cross_entropy
from vgen.models.videogpt.vqvae_module import VideoVQVAE
from vgen.training import AutoregressiveCodes, CodeSampling
from vgen.training.autoregressive import CodeSteps
from vgen.video import ClipSpec
from vgen.weights import Handoff


class VideoGPT(AutoregressiveCodes):
    """Generates clips without conditions, of a class, or behind first frames, code by code.

    Args:
        clip_spec: Clips to generate. Their classes are used by a class-conditional prior alone.
        prior: The transformer.
        codec: The trained VQ-VAE.
        sampling: How codes are drawn.
        cache_latents: Encode the training set once, at the start; for clips that are the same in every epoch.
        optimizer: Optimiser of the transformer.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        prior: CodeTransformer,
        codec: Handoff | nn.Module | None,
        sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
        cache_latents: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        names = clip_spec.class_names if prior.class_conditional else ()
        spec = replace(clip_spec, class_names=names, condition_keys=("label",) if names else ())
        super().__init__(spec, codec, sampling, cache_latents, optimizer, lr_scheduler, lr_interval)
        if not isinstance(self.codec.network, VideoVQVAE):
            raise UserError(f"VideoGPT needs a VideoVQVAE, got {type(self.codec.network).__name__}", "codec")
        if prior.condition_frames >= spec.frames:
            raise UserError(f"{prior.condition_frames} frames are given of {spec.frames}", "prior.condition_frames")
        codes, width = self.vqvae.network.codebook.embeddings.shape
        prior.prepare(self.code_shape, codes, width, len(names), spec.channels, (spec.height, spec.width))
        self.prior = prior
        self.past_frames = max(prior.condition_frames, 1)

    @property
    def vqvae(self) -> VideoVQVAE:
        """The frozen first stage."""
        return self.codec.network  # type: ignore[return-value]

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the prior takes: `label`, and the given frames: `image` where it is one, else `video`."""
        found: dict[str, Any] = {"label": batch["label"]} if self.prior.class_conditional else {}
        given = self.prior.condition_frames
        if given == 1:
            found["image"] = batch["video"][:, :, 0]
        elif given:
            found["video"] = batch["video"][:, :, :given]
        return found

    def _inputs(self, conditions: dict[str, Any]) -> tuple[Tensor | None, Tensor | None]:
        """Classes (n,) and given frames (n, C, k, H, W) in [-0.5, 0.5].

        Raises:
            UserError: A condition is missing, or is not taken.
        """
        given = self.prior.condition_frames
        wanted = {"label"} if self.prior.class_conditional else set()
        wanted |= {"image" if given == 1 else "video"} if given else set()
        # A class comes with its name.
        found = set(conditions) - ({"text"} if "label" in wanted else set())
        if found != wanted:
            takes = " and ".join(sorted(wanted)) or "no condition"
            raise UserError(f"this prior takes {takes}, not {', '.join(sorted(found)) or 'none'}", "conditions")
        frames = None
        if given:
            frames = conditions["image"][:, :, None] if given == 1 else conditions["video"]
            if frames.shape[2] != given:
                raise UserError(f"{given} frames are given, not {frames.shape[2]}", "video")
            frames = frames.to(self.dtype) / 2
        return conditions.get("label"), frames

    def code_vectors(self, codes: Tensor) -> Tensor:
        """See `AutoregressiveCodes`: the codebook's own vectors."""
        return self.vqvae.network.codebook.lookup(codes).to(self.dtype)

    def code_loss(self, codes: Tensor, conditions: dict[str, Any]) -> Tensor:
        """See `AutoregressiveCodes`."""
        return cross_entropy(self.prior(self.code_vectors(codes), *self._inputs(conditions)), codes)

    def code_steps(self, n: int, conditions: dict[str, Any], cached: bool) -> CodeSteps:
        """See `AutoregressiveCodes`."""
        return self.prior.steps(n, *self._inputs(conditions), cached=cached)
