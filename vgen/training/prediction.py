"""The base of models that predict a video frame by frame behind past frames, with a latent of every frame."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.diffusion import ClipNoise
from vgen.errors import UserError
from vgen.training.base import SingleLossModule
from vgen.training.sampling import StreamsClips, check_options
from vgen.video import ClipSpec

State = dict[str, Tensor]
"""What a prediction goes on from; first dimension n."""


class FramePrediction(StreamsClips, SingleLossModule):
    """Predicts videos of any length from their first frames.

    Clips that it generates begin with the past frames. A subclass says how: `read_past`, `predict_frame`, and the
    values of its options. Noise is drawn for a whole piece at once, and nothing waits for the device between frames.

    Args:
        clip_spec: Clips to train on: past frames and those that are predicted. Classes are not used.
        past_frames: Frames P that are given.
        latent_dim: Numbers that are drawn for each frame.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        past_frames: int,
        latent_dim: int,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(replace(clip_spec, class_names=(), condition_keys=()), optimizer, lr_scheduler, lr_interval)
        if not 0 < past_frames < clip_spec.frames:
            what = f"{past_frames} past frames of clips of {clip_spec.frames} leave nothing to predict"
            raise UserError(what, "past_frames", "clips have past and predicted frames: data.init_args.frames")
        self.past_frames, self.latent_dim = past_frames, latent_dim

    # What a subclass says -------------------------------------------------------------------------------------------

    def prediction_options(self) -> dict[str, Any]:
        """The options of sampling and their values."""
        return {}

    def read_past(self, past: Tensor, noise: Tensor, options: dict[str, Any]) -> State:
        """Reads the past frames.

        Args:
            past: (n, C, P, H, W) in [-1, 1].
            noise: Standard normal (n, P, latent).
            options: See `prediction_options`.

        Returns:
            The state from which the first frame behind them is predicted.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read_past(...)")

    def predict_frame(self, state: State, noise: Tensor, options: dict[str, Any]) -> tuple[Tensor, State]:
        """Predicts a frame (n, C, H, W) in [-1, 1] with noise (n, latent), and returns the next state beside it."""
        raise NotImplementedError(f"{type(self).__name__} must define predict_frame(...)")

    # Generation -----------------------------------------------------------------------------------------------------

    def conditions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The past frames: `video` (B, C, P, H, W)."""
        return {"video": batch["video"][:, :, : self.past_frames]}

    def generate_pieces(
        self,
        conditions: dict[str, Any],
        n: int,
        frames: int,
        seeds: list[int],
        options: dict[str, Any],
        state: dict[str, Tensor],
    ) -> Iterator[Tensor]:
        """Predicts behind `conditions["video"]` (n, C, P, H, W), which are the first frames of what it yields."""
        chosen = self._chosen(options)
        past = self._past(conditions)
        noise = ClipNoise(seeds)
        done = int(state.get("frames", torch.zeros(())))
        if done:
            inner: State = {k.removeprefix("state."): v.to(self.device) for k, v in state.items() if k != "frames"}
        else:
            inner = self.read_past(past, self._noise(noise, n, range(self.past_frames)), chosen)
        while done < frames:
            until = min(frames, done + self.clip_spec.frames)
            first = max(done, self.past_frames)
            drawn = self._noise(noise, n, range(first, until))
            piece = [past[:, :, t] for t in range(done, min(until, self.past_frames))]
            for step in range(drawn.shape[1]):
                frame, inner = self.predict_frame(inner, drawn[:, step], chosen)
                piece.append(frame.to(past.dtype))
            done = until
            for name, value in inner.items():
                state[f"state.{name}"] = value.cpu()
            state["frames"] = torch.tensor(done)
            yield torch.stack(piece, dim=2)

    def _noise(self, noise: ClipNoise, n: int, frames: range) -> Tensor:
        """Standard normal (n, frames, latent); that of a frame is a function of the clip's seed and its number."""
        drawn = [noise(frame, (n, self.latent_dim)) for frame in frames]
        return torch.stack(drawn, 1).to(self.device).to(self.dtype) if drawn else torch.zeros(n, 0, self.latent_dim)

    def _past(self, conditions: dict[str, Any]) -> Tensor:
        if set(conditions) != {"video"}:
            given = ", ".join(conditions) or "nothing"
            what = f"{type(self).__name__} predicts behind {self.past_frames} past frames, not from {given}"
            raise UserError(what, "video", "give video=..., (n, C, frames, H, W)")
        past: Tensor = conditions["video"].to(self.dtype)
        wanted = (self.clip_spec.channels, self.past_frames, self.clip_spec.height, self.clip_spec.width)
        if past.shape[1:] != wanted:
            raise UserError(f"past frames of {wanted} (C, T, H, W) are needed, not {tuple(past.shape[1:])}", "video")
        return past

    def _chosen(self, options: dict[str, Any]) -> dict[str, Any]:
        known = self.prediction_options()
        check_options(options, known)
        return known | options
