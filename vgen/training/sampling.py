"""How models are asked for clips: the checks, defaults and devices that every family shares."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vgen.conditioning import label_indices
from vgen.errors import UserError, did_you_mean
from vgen.video import ClipSpec, to_float
from vgen.video.image import load_image


class SamplesClips:
    """Mixin of a `VideoModule` that generates clips: gives it `sample`, from its own `generate`."""

    clip_spec: ClipSpec
    device: torch.device
    training: bool
    past_frames: int = 1
    """Frames of a condition `video`."""

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Generates clips (n, C, T, H, W) in [-1, 1]; see `vgen.video.protocols.Samples`."""
        raise NotImplementedError(f"{type(self).__name__} must define generate(...)")

    @torch.no_grad()
    def sample(
        self,
        conditions: dict[str, Any] | None = None,
        n: int = 1,
        frames: int | None = None,
        seeds: list[int] | None = None,
        options: dict[str, Any] | None = None,
        image: Any = None,
        label: str | int | list[str] | list[int] | None = None,
        text: str | list[str] | None = None,
        video: Any = None,
    ) -> Tensor:
        """Generates clips; the result of clip i depends on its conditions and `seeds[i]` alone.

        Args:
            conditions: Conditions in batch form, first dimension n. People use `image`, `label`, `text` instead.
            n: Number of clips.
            frames: Frames T of each; default the number that the model was trained with.
            seeds: One per clip; default 0..n-1.
            options: Sampler settings that differ from the recipe's (`steps`, `guidance`, `eta`, ...).
            image: First frame: path, PIL image, array or tensor (see `load_image`), or a list of n of them.
            label: Class by name or index, or a list of n.
            text: Free text, or a list of n.
            video: Clips whose last frames are given, in the model's size: tensor (C, T, H, W), uint8 or float in
                [-1, 1], or a list of n of them.

        Returns:
            (n, C, T, H, W) in [-1, 1].

        Raises:
            UserError: When a condition is missing or unknown, or the counts differ.
        """
        conditions = dict(conditions or {}) | self.batch_conditions(n, image, label, text, video)
        conditions, seeds = self._checked(conditions, n, seeds)
        with self._evaluating():
            return self.generate(conditions, n, frames or self.clip_spec.frames, seeds, dict(options or {}))

    def _checked(self, conditions: dict[str, Any], n: int, seeds: list[int] | None) -> tuple[dict[str, Any], list[int]]:
        """Conditions on the device and a seed for each clip, as many as there are clips."""
        seeds = list(range(n)) if seeds is None else list(seeds)
        if len(seeds) != n:
            raise UserError(f"{len(seeds)} seeds for {n} clips", "sample(seeds=)")
        for key, value in conditions.items():
            if len(value) != n:
                raise UserError(f"condition {key!r} has {len(value)} entries for {n} clips", "sample(conditions=)")
        moved = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in conditions.items()}
        return moved, seeds

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.training
        self.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.train(was_training)  # type: ignore[attr-defined]

    def batch_conditions(
        self, n: int, image: Any = None, label: Any = None, text: Any = None, video: Any = None
    ) -> dict[str, Any]:
        """Turns what a person gives (see `sample`) into conditions in batch form."""
        spec = self.clip_spec
        result: dict[str, Any] = {}
        if image is not None:
            several = isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.ndim == 4)
            pictures = [load_image(one, spec.height, spec.width) for one in (image if several else [image])]
            result["image"] = torch.stack(pictures if len(pictures) == n else pictures * n)
        if label is not None:
            result["label"] = label_indices(label, spec.class_names, n)
            result["text"] = [spec.class_names[index] if index >= 0 else None for index in result["label"].tolist()]
        if text is not None:
            result["text"] = list(text) if isinstance(text, (list, tuple)) else [text] * n
        if video is not None:
            clips = list(video) if isinstance(video, (list, tuple)) or video.ndim == 5 else [video]
            clips = [to_float(clip) if clip.dtype == torch.uint8 else clip for clip in clips]
            result["video"] = torch.stack(clips if len(clips) == n else clips * n)[:, :, -self.past_frames :]
        return result


def check_options(options: Mapping[str, Any], known: Collection[str], where: str = "options") -> None:
    """Refuses options that a model does not have.

    Raises:
        UserError: Names the first of them.
    """
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) or f"there: {', '.join(known) or 'none'}"
            raise UserError(f"no option {name!r}", where, hint)


class StreamsClips(SamplesClips):
    """Mixin of a `VideoModule` that generates videos of any length clip by clip, from its own `generate_pieces`."""

    def generate_pieces(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int,
        seeds: list[int],
        options: dict[str, Any],
        state: dict[str, Tensor],
    ) -> Iterator[Tensor]:
        """Generates pieces (n, C, t, H, W) in [-1, 1]; see `vgen.video.protocols.Streams`."""
        raise NotImplementedError(f"{type(self).__name__} must define generate_pieces(...)")

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """All pieces in one tensor (n, C, T, H, W)."""
        return torch.cat(list(self.generate_pieces(conditions, n, frames, seeds, options, {})), dim=2)

    @torch.no_grad()
    def stream(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int,
        seeds: list[int] | None = None,
        options: dict[str, Any] | None = None,
        state: dict[str, Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """Yields the pieces of n videos; see `vgen.video.protocols.Streams`.

        Args:
            conditions: Conditions in batch form, first dimension n.
            n: Number of videos.
            frames: Frames of each.
            seeds: One per video; default 0..n-1.
            options: Sampler settings that differ from the recipe's.
            state: What an earlier stream with the same arguments left behind; it is kept up to date in place.

        Raises:
            UserError: When a condition or option is unknown, or the counts differ.
        """
        conditions, seeds = self._checked(conditions, n, seeds)
        with self._evaluating():
            state = {} if state is None else state
            yield from self.generate_pieces(conditions, n, frames, seeds, dict(options or {}), state)
