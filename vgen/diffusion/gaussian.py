"""The diffusion process of a model: forward noising, training target and loss, x0 and eps for the samplers."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.diffusion import prediction as predict
from vgen.diffusion.prediction import Prediction
from vgen.diffusion.schedules import DiffusionSchedule, ScheduleKind, gather
from vgen.diffusion.thresholding import Threshold
from vgen.diffusion.weighting import LossWeighting


class GaussianDiffusion(Configurable, nn.Module):
    """Discrete Gaussian diffusion; holds constants alone, no parameters and no network.

    Args:
        schedule: Noise schedule.
        steps: Steps T.
        prediction: What the network outputs: eps, x0 or v.
        loss_type: Distance of output and target: l2, l1 or huber.
        weighting: Weight of each sample by its noise level.
        threshold: What is done to x0 while sampling.
        beta_ends: First and last beta of a linear or scaled linear schedule, instead of the usual ones.
    """

    def __init__(
        self,
        schedule: ScheduleKind = "cosine",
        steps: int = 1000,
        prediction: Literal["eps", "x0", "v"] = "eps",
        loss_type: Literal["l2", "l1", "huber"] = "l2",
        weighting: LossWeighting | None = None,
        threshold: Threshold | None = None,
        beta_ends: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.schedule = DiffusionSchedule(schedule, steps, beta_ends)
        self.prediction: Prediction = prediction
        self.loss_type = loss_type
        # plain data is accepted beside the classes, as a checkpoint records it
        self.weighting = LossWeighting(**weighting) if isinstance(weighting, Mapping) else weighting or LossWeighting()
        self.threshold = Threshold(**threshold) if isinstance(threshold, Mapping) else threshold or Threshold()

    @property
    def steps(self) -> int:
        """Steps T of the schedule."""
        return self.schedule.steps

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise (Ho et al. 2020, equation 4); t is (B,) int64."""
        alpha, sigma = self.schedule.alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should output at x_t."""
        return predict.target(self.prediction, x0, noise, *self.schedule.alpha_sigma(t, x0))

    def losses(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Weighted loss of each sample, (B,), in fp32.

        Args:
            output: Network output at x_t, (B, ...).
            x0: Data (B, ...).
            noise: The noise of `q_sample`.
            t: (B,) int64.
        """
        wanted = self.target(x0, noise, t)
        distance = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}[self.loss_type]
        each = distance(output.float(), wanted.float(), reduction="none").flatten(1).mean(1)
        weight = self.weighting(self.schedule.snr[t], self.prediction)
        return each if weight is None else each * weight

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The x0 that the network's output means, without threshold; arguments as in `x0_eps`."""
        output = output.float()
        if self.prediction == "eps":  # by the tables: 1/alpha reaches 64,000 at the end of a cosine schedule
            reciprocal = gather(self.schedule.sqrt_recip_alphas_cumprod, t, x_t)
            return reciprocal * x_t - gather(self.schedule.sqrt_recipm1_alphas_cumprod, t, x_t) * output
        return predict.to_x0(self.prediction, output, x_t, *self.schedule.alpha_sigma(t, x_t))

    def output_of(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's output that means x0 at x_t: the inverse of `estimate`."""
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        return predict.target(self.prediction, x0, predict.eps_of(x0, x_t, alpha, sigma), alpha, sigma)

    def x0_eps(self, output: Tensor, x_t: Tensor, t: Tensor, rederive: bool = False) -> tuple[Tensor, Tensor]:
        """Thresholded x0 and eps from the network's (guided) output.

        Args:
            output: Network output at x_t, (B, ...).
            x_t: Noisy data (B, ...).
            t: (B,) int64.
            rederive: Return the eps that leads from the thresholded x0 to x_t; otherwise the network's own.
        """
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        x0 = self.threshold(self.estimate(output, x_t, t))
        if rederive:
            return x0, predict.eps_of(x0, x_t, alpha, sigma)
        return x0, predict.to_eps(self.prediction, output.float(), x_t, alpha, sigma)

    def full(self, t: int, like: Tensor) -> Tensor:
        """The same timestep for each sample of `like`: (B,) int64."""
        return torch.full((len(like),), t, dtype=torch.long, device=like.device)
