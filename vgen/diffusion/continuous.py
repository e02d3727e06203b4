"""Diffusion in continuous time: what `GaussianDiffusion` is for a table of steps."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.diffusion import prediction as predict
from vgen.diffusion.continuous_schedules import VE, VP, ContinuousSchedule
from vgen.diffusion.distances import Distance, distance
from vgen.diffusion.prediction import Prediction
from vgen.diffusion.schedules import broadcast
from vgen.diffusion.sde import SDE, ScoreFn
from vgen.diffusion.thresholding import Threshold
from vgen.diffusion.time_sampling import TimeSampling
from vgen.diffusion.weighting import LossWeighting
from vgen.errors import UserError


class ContinuousDiffusion(Configurable, nn.Module):
    """Forward noising, training target and loss, x0, eps and score; no parameters and no network.

    score SDE's models: VP or SubVP with eps, VE with score. EDM: Karras with x0 (of `Preconditioned`), lognormal times
    and edm weights. Flow matching: Flow with flow.

    Args:
        schedule: Noise schedule.
        prediction: What the network outputs.
        times: Density of training times.
        loss_type: Distance of output and target; for score, of sigma times both.
        weighting: Weight of each sample by its noise level.
        likelihood_weighting: Weight g^2/sigma^2 of the squared error of eps, with which the loss bounds the likelihood.
        reduction: Of a sample's loss: mean over its dimensions, or half of their sum (score SDE's VE models).
        threshold: What is done to x0 while sampling.
        label: What the network is told of t: score_sde's convention, sigma/alpha, or t times 1000.
        steps: Steps N of score SDE's discretisations.
        continuous: See `SDE`.
    """

    def __init__(
        self,
        schedule: ContinuousSchedule = VP(),  # noqa: B008  (frozen)
        prediction: Literal["eps", "x0", "v", "flow", "score"] = "eps",
        times: TimeSampling = TimeSampling(),  # noqa: B008  (frozen)
        loss_type: Distance = "l2",
        weighting: LossWeighting = LossWeighting(),  # noqa: B008  (frozen)
        likelihood_weighting: bool = False,
        reduction: Literal["mean", "half_sum"] = "mean",
        threshold: Threshold = Threshold("none"),  # noqa: B008  (frozen)
        label: Literal["score_sde", "sigma", "time"] = "score_sde",
        steps: int = 1000,
        continuous: bool = True,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.prediction: Prediction = prediction
        # plain data is accepted beside the classes, as a checkpoint records it
        self.times = TimeSampling(**times) if isinstance(times, Mapping) else times
        self.weighting = LossWeighting(**weighting) if isinstance(weighting, Mapping) else weighting
        self.threshold = Threshold(**threshold) if isinstance(threshold, Mapping) else threshold
        self.loss_type, self.likelihood_weighting, self.reduction = loss_type, likelihood_weighting, reduction
        self.label_kind, self.steps, self.continuous = label, steps, continuous
        if label == "score_sde":
            self.sde(steps)

    def sde(self, steps: int | None = None) -> SDE:
        """Score SDE's view of the process, cut into `steps`.

        Raises:
            UserError: The schedule is none of VP, SubVP and VE.
        """
        if not isinstance(self.schedule, (VP, VE)):
            raise UserError(
                f"score SDE's methods know VP, SubVP and VE, not {type(self.schedule).__name__}",
                "diffusion",
                "label: sigma or time, and another sampler",
            )
        return SDE(self.schedule, steps or self.steps, self.continuous)

    def label(self, t: Tensor) -> Tensor:
        """What the network is told at times t (B,)."""
        if self.label_kind == "score_sde":
            return self.sde().label(t)
        return self.schedule.sigma(t) / self.schedule.alpha(t) if self.label_kind == "sigma" else 1000 * t

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of data and noise at t, (B,) or (B, T), shaped to broadcast over `like`."""
        return broadcast(self.schedule.alpha(t), like), broadcast(self.schedule.sigma(t), like)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = alpha(t) x0 + sigma(t) noise."""
        alpha, sigma = self.alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def draw(self, batch: int, device: torch.device | None = None) -> Tensor:
        """Training times (batch,); of a network of discrete noise levels (SMLD), those of its levels alone."""
        if self.label_kind == "score_sde" and not self.continuous:
            return torch.randint(self.steps, (batch,), device=device) / (self.steps - 1)
        return self.times(self.schedule, batch, device)

    def losses(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Weighted loss of each sample, (B,), in fp32.

        Args:
            output: Network output at x_t, (B, ...).
            x0: Data (B, ...).
            noise: The noise of `q_sample`.
            t: (B,).
        """
        alpha, sigma = self.alpha_sigma(t, x0)
        wanted = predict.target(self.prediction, x0, noise, alpha, sigma)
        output = output.float()
        if self.prediction == "score":  # its square is 1/sigma^2: in the scale of eps
            output, wanted = output * sigma, wanted * sigma
        each = distance(self.loss_type, output, wanted).flatten(1)
        loss = each.mean(1) if self.reduction == "mean" else each.sum(1) / 2
        space: Prediction = "eps" if self.prediction == "score" else self.prediction
        weight = self.weighting(self.schedule.log_snr(t).exp(), space)
        if self.likelihood_weighting:
            loss = loss * (self.schedule.diffusion(t) / self.schedule.sigma(t)) ** 2
        return loss if weight is None else loss * weight

    def x0_eps(self, output: Tensor, x_t: Tensor, t: Tensor, rederive: bool = False) -> tuple[Tensor, Tensor]:
        """Thresholded x0 and eps; see `GaussianDiffusion.x0_eps`."""
        alpha, sigma = self.alpha_sigma(t, x_t)
        x0 = self.threshold(predict.to_x0(self.prediction, output, x_t, alpha, sigma))
        if rederive:
            return x0, predict.eps_of(x0, x_t, alpha, sigma)
        return x0, predict.to_eps(self.prediction, output, x_t, alpha, sigma)

    def score(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The score of p_t from the network's output; the threshold plays no part."""
        if self.prediction == "score":
            return output
        if self.prediction == "eps" and self.label_kind == "score_sde":
            return self.sde().score(output, t)  # a network of discrete steps has its sigma from their table
        alpha, sigma = self.alpha_sigma(t, x_t)
        return -predict.to_eps(self.prediction, output, x_t, alpha, sigma) / sigma

    def score_fn(self, denoise_fn: ScoreFn) -> ScoreFn:
        """The score function of a network with its conditions, (x, t) -> raw output."""
        return lambda x, t: self.score(denoise_fn(x, t), x, t)

    def full(self, t: float, like: Tensor) -> Tensor:
        """The same time for each sample of `like`, (B,) in its dtype."""
        return torch.full((len(like),), t, dtype=like.dtype, device=like.device)
