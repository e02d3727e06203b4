"""SVG: stochastic video generation with a fixed or a learned prior (Denton & Fergus, ICML 2018)."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.diffusion.variational import normal_kl
from vgen.errors import UserError
from vgen.models.svg.networks import Statistics, SVGNetwork, Unrolled
from vgen.training import FramePrediction
from vgen.video import ClipSpec


def losses(made: Unrolled, video: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and KL divergence of each step (equations 2 and 4).

    Args:
        made: Predictions of frames 1 to T-1.
        video: (B, T, C, H, W) in [0, 1].

    Returns:
        (T-1,) each: the error's mean over clips and pixels; the divergence of posterior from prior in nats, summed over
        the latent, mean over clips.
    """
    error = (made.frames.float() - video[:, 1:].float()).square().mean((0, 2, 3, 4))
    terms = (made.mean, made.log_variance, made.prior_mean, made.prior_log_variance)
    divergence = normal_kl(*(term.float() for term in terms)).sum((0, 2)) / len(video)
    return error, divergence


class SVG(FramePrediction):
    """Predicts video frame by frame: SVG-FP or SVG-LP, as the network's prior is fixed or learned.

    Training always sees the real frame before (teacher forcing), and reconstructs the past frames as well. The loss of
    a clip is the sum over its frames of squared error + beta KL.

    Options of sampling: `statistics` and `posterior`.

    Args:
        clip_spec: Clips to train on: past frames and those that are predicted, square.
        network: The networks.
        past_frames: Frames that are given; at least 2 unless `last_frame_skip`.
        beta: Weight of the KL divergence.
        last_frame_skip: The decoder always sees the features of the frame before. False: behind the past frames it
            sees those of the last but one, as in the release, whose step i reads frame i-1.
        statistics: What normalises in sampling: `running` statistics (SVG-FP's release), or those of the `batch` of
            clips that are sampled together (SVG-LP's). Under `batch` a clip depends on the others of its batch.
        posterior: What drives the LSTM over the past frames: a `sample` of the posterior (SVG-LP's release) or its
            `mean` (SVG-FP's).
        optimizer: Optimiser. The release has one for each network, with the same settings: the same as one for all.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: SVGNetwork,
        past_frames: int,
        beta: float = 1e-4,
        last_frame_skip: bool = False,
        statistics: Statistics = "running",
        posterior: Literal["sample", "mean"] = "sample",
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, past_frames, network.latent_dim, optimizer, lr_scheduler, lr_interval)
        network.prepare(clip_spec)
        self.network = network
        self.beta, self.last_frame_skip = beta, last_frame_skip
        self.statistics: Statistics = statistics
        self.posterior: Literal["sample", "mean"] = posterior
        if past_frames < 2 and not last_frame_skip:
            what = "with one past frame, no frame's features would go around the LSTM"
            raise UserError(what, "past_frames", "give 2 or more, or set last_frame_skip: true")

    @property
    def shared_from(self) -> int | None:
        """Number of the frame whose features the decoder keeps to; None: it never stays with one."""
        return None if self.last_frame_skip else self.past_frames - 2

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Squared error + beta KL, summed over frames.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1].
        """
        video = _unit(batch["video"])
        noise = torch.randn(len(video), video.shape[1] - 1, self.latent_dim, device=video.device, dtype=video.dtype)
        error, divergence = (each.sum() for each in losses(self.network(video, noise, self.shared_from), video))
        return {"loss": error + self.beta * divergence, "mse": error, "kl": divergence}

    def prediction_options(self) -> dict[str, Any]:
        """See `FramePrediction`."""
        return {"statistics": self.statistics, "posterior": self.posterior}

    def read_past(self, past: Tensor, noise: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        """See `FramePrediction`; the noise of the first frame, which has no posterior, is not used.

        Raises:
            UserError: An option has a value that there is not, or the batch is too small for statistics.
        """
        for name, known in (("statistics", ("running", "batch")), ("posterior", ("sample", "mean"))):
            if options[name] not in known:
                raise UserError(f"{name} is {' or '.join(known)}, not {options[name]!r}", "options")
        if options["statistics"] == "batch" and len(past) < 2:
            raise UserError("one clip alone has no statistics of a batch", "statistics", "use running, or more clips")
        drawn = noise[:, 1:] if options["posterior"] == "sample" else None
        with self.network.using(options["statistics"]):
            return self.network.begin(_unit(past), drawn, self.shared_from)

    def predict_frame(
        self, state: dict[str, Tensor], noise: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `FramePrediction`."""
        with self.network.using(options["statistics"]):
            frame, state = self.network.step(state, noise)
        return 2 * frame - 1, state


def _unit(video: Tensor) -> Tensor:
    """(B, C, T, H, W) in [-1, 1] -> (B, T, C, H, W) in [0, 1]."""
    return (video.transpose(1, 2) + 1) / 2
