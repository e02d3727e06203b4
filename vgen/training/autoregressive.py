"""The base of models that generate the codes of a clip one after the other, and decode them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Latent, LatentCache, open_codec
from vgen.diffusion.noise import mix
from vgen.errors import UserError
from vgen.nn.categorical import draw, keep_likely
from vgen.training.base import SingleLossModule
from vgen.training.caching import cached_latents
from vgen.training.sampling import SamplesClips, check_options
from vgen.video import ClipSpec
from vgen.weights import Handoff

_SMALL = 1 << 15  # codes below that fit into 16 bits


@dataclass(frozen=True)
class CodeSampling:
    """How codes are drawn.

    Args:
        temperature: Logits are divided by it; 0: always the likeliest code.
        top_k: Only so many of the likeliest codes are drawn; None: all.
        top_p: Only the likeliest codes whose probabilities add up to that; None: all.
        cached: Keys and values of earlier tokens are kept. False computes everything anew for every token, for
            comparisons: the same codes, up to rounding.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    cached: bool = True

    def __post_init__(self) -> None:
        """Refuses values that mean nothing."""
        if self.temperature < 0:
            raise UserError(f"a temperature is not negative, got {self.temperature}", "temperature")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k is at least 1, got {self.top_k}", "top_k")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p lies in (0, 1], got {self.top_p}", "top_p")


class CodeSteps(Protocol):
    """Logits of codes in turn."""

    def __iter__(self) -> Iterator[Tensor]:
        """Logits (n, codes) of each code, given those that `put` has told."""

    def put(self, embeddings: Tensor) -> None:
        """Tells the vectors (n, C) of the codes that were drawn."""


class AutoregressiveCodes(SamplesClips, SingleLossModule):
    """A prior over the codes of a frozen first stage, trained by cross entropy.

    A subclass says `code_loss` and `code_steps`. All that is random about a clip is one uniform number for each code, a
    function of the clip's seed and the code's place.

    Args:
        clip_spec: Clips to generate.
        codec: The trained first stage, with `codes` as its latent.
        sampling: How codes are drawn.
        cache_latents: Encode the training set once, at the start; for clips that are the same in every epoch.
        optimizer: Optimiser of the prior.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        codec: Handoff | nn.Module | None,
        sampling: CodeSampling = CodeSampling(),
        cache_latents: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.codec = open_codec(codec, "codec")
        self.sampling, self.cache_latents = sampling, cache_latents
        self._cache: LatentCache | None = None
        shape = self.codec.network.latent_spec(clip_spec).get("codes")  # type: ignore[operator]
        if shape is None or len(shape) != 3:
            raise UserError(f"{type(self.codec.network).__name__} gives no grid of codes", "codec")
        self.code_shape: tuple[int, int, int] = shape

    # What a subclass says -------------------------------------------------------------------------------------------

    def code_loss(self, codes: Tensor, conditions: dict[str, Any]) -> Tensor:
        """Cross entropy in nats per code of codes (B, t, h, w)."""
        raise NotImplementedError(f"{type(self).__name__} must define code_loss(...)")

    def code_steps(self, n: int, conditions: dict[str, Any], cached: bool) -> CodeSteps:
        """Logits of the codes of n clips in turn."""
        raise NotImplementedError(f"{type(self).__name__} must define code_steps(...)")

    def code_vectors(self, codes: Tensor) -> Tensor:
        """What stands for codes (...) in the prior's input: (..., C)."""
        raise NotImplementedError(f"{type(self).__name__} must define code_vectors(...)")

    # Training -------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Caches codes where that is wanted."""
        if self.cache_latents:
            self._cache = cached_latents(self, self.codec, self._encoded)

    @torch.no_grad()
    def _encoded(self, batch: dict[str, Any]) -> Latent:
        codes = self.codec.network.encode(batch["video"])["codes"]  # type: ignore[operator]
        return {"codes": codes.to(torch.int16 if int(codes.max()) < _SMALL else torch.int32)}

    @torch.no_grad()
    def codes_of(self, batch: dict[str, Any]) -> Tensor:
        """Codes (B, t, h, w) int64 of a batch, from the cache where there is one."""
        if self._cache is not None and self.training:
            return self._cache(batch["path"], self.device)["codes"].long()
        codes: Tensor = self.codec.network.encode(batch["video"])["codes"]  # type: ignore[operator]
        return codes

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross entropy per code, in nats, and `bits`, the same in bits.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1], and the conditions.
        """
        loss = self.code_loss(self.codes_of(batch), self.conditions(batch))
        return {"loss": loss, "bits": loss.detach() / torch.log(torch.tensor(2.0))}

    # Sampling -------------------------------------------------------------------------------------------------------

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Draws codes and decodes them; the options are the fields of `CodeSampling`."""
        if frames > self.clip_spec.frames:
            what = f"the prior makes clips of {self.clip_spec.frames} frames, not {frames}"
            raise UserError(what, "frames", f"use at most {self.clip_spec.frames}")
        check_options(options, [field.name for field in fields(CodeSampling)])
        codes = self.draw_codes(conditions, n, seeds, replace(self.sampling, **options))
        video: Tensor = self.codec.network.decode({"codes": codes})  # type: ignore[operator]
        return video[:, :, :frames]

    @torch.no_grad()
    def draw_codes(self, conditions: dict[str, Any], n: int, seeds: list[int], sampling: CodeSampling) -> Tensor:
        """Codes (n, t, h, w) int64, drawn one after the other without waiting for the device."""
        length = self.code_shape[0] * self.code_shape[1] * self.code_shape[2]
        uniform = self._uniform(seeds, length)
        steps, drawn = self.code_steps(n, conditions, sampling.cached), list[Tensor]()
        for place, logits in enumerate(steps):
            if sampling.temperature == 0:
                codes = logits.argmax(-1)
            else:
                likely = keep_likely(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p)
                codes = draw(likely, uniform[:, place])
            drawn.append(codes)
            if place + 1 < length:
                steps.put(self.code_vectors(codes))
        return torch.stack(drawn, 1).view(n, *self.code_shape)

    def _uniform(self, seeds: list[int], length: int) -> Tensor:
        """(n, length) uniform numbers in [0, 1), moved to the device at once."""
        rows = [torch.rand(length, generator=torch.Generator().manual_seed(mix(seed, 0))) for seed in seeds]
        return torch.stack(rows).to(self.device)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """What the first stage makes of real clips: the best that the prior could reach."""
        made: Tensor = self.codec.network.reconstruct(batch)  # type: ignore[operator]
        return made
