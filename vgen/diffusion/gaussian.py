"""The diffusion process of a model: forward noising, training target and loss, x0 and eps for the samplers."""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.diffusion import prediction as predict
from vgen.diffusion.distances import Distance, distance
from vgen.diffusion.prediction import Prediction
from vgen.diffusion.respacing import respaced_betas
from vgen.diffusion.schedules import DiffusionSchedule, ScheduleKind, broadcast, gather
from vgen.diffusion.thresholding import Threshold
from vgen.diffusion.variational import bits, discretised_log_likelihood, normal_kl
from vgen.diffusion.weighting import LossWeighting
from vgen.errors import UserError

Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]


class GaussianDiffusion(Configurable, nn.Module):
    """Discrete Gaussian diffusion; holds constants alone, no parameters and no network.

    Times t are (B,) int64, or (B, T) where every frame of a clip has its own.

    Args:
        schedule: Noise schedule.
        steps: Steps T.
        prediction: What the network outputs: eps, x0, v, or the mean of x_{t-1}.
        loss_type: Distance of output and target: l2, l1, huber, charbonnier; or kl, the variational bound in bits.
        weighting: Weight of each sample by its noise level.
        threshold: What is done to x0 while sampling.
        beta_ends: First and last beta of a linear or scaled linear schedule, instead of the usual ones.
        variance: Of the reverse steps: beta~ (fixed_small) or beta (fixed_large); or from the second half of the
            output's channels, which are the log variance (learned) or lie between those two (learned_range).
        vlb_weight: Of the variational bound, which is the whole loss under kl and is added where the variance is
            learned, with no gradient to the mean. 1 in bits at 1000 steps; T/1000 keeps it for others (iDDPM).
        eta: Of charbonnier.
        zero_snr: Rescale the schedule so that nothing is left of the data at t = T - 1 (Lin et al. 2024).
    """

    def __init__(
        self,
        schedule: ScheduleKind = "cosine",
        steps: int = 1000,
        prediction: Literal["eps", "x0", "v", "mean"] = "eps",
        loss_type: Literal["l2", "l1", "huber", "charbonnier", "kl"] = "l2",
        weighting: LossWeighting | None = None,
        threshold: Threshold | None = None,
        beta_ends: tuple[float, float] | None = None,
        variance: Variance = "fixed_small",
        vlb_weight: float = 1.0,
        eta: float = 1e-8,
        zero_snr: bool = False,
    ) -> None:
        super().__init__()
        if zero_snr and prediction == "eps":
            raise UserError(
                "with zero terminal SNR the last step holds no data, and x0 cannot be had from eps",
                "diffusion.prediction",
                "predict v or x0",
            )
        self.schedule = DiffusionSchedule(schedule, steps, beta_ends, zero_snr)
        self.prediction: Prediction = prediction
        self.loss_type, self.eta = loss_type, eta
        self.variance, self.vlb_weight = variance, vlb_weight
        # plain data is accepted beside the classes, as a checkpoint records it
        self.weighting = LossWeighting(**weighting) if isinstance(weighting, Mapping) else weighting or LossWeighting()
        self.threshold = Threshold(**threshold) if isinstance(threshold, Mapping) else threshold or Threshold()

    @property
    def steps(self) -> int:
        """Steps T of the schedule."""
        return self.schedule.steps

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has as many channels again, for the variance."""
        return self.variance in ("learned", "learned_range")

    def respaced(self, kept: Sequence[int]) -> Self:
        """The process over the kept steps alone, numbered from 0; the network is still to be told the old numbers."""
        process = copy.copy(self)
        schedule = DiffusionSchedule(beta=respaced_betas(self.schedule.exact_alphas_cumprod, kept))
        process._modules = {**self._modules, "schedule": schedule.to(self.schedule.betas.device)}
        return process

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise (Ho et al. 2020, equation 4)."""
        alpha, sigma = self.schedule.alpha_sigma(t, x0)
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should output at x_t."""
        if self.prediction == "mean":
            return self.schedule.posterior(x0, self.q_sample(x0, t, noise), t)[0]
        return predict.target(self.prediction, x0, noise, *self.schedule.alpha_sigma(t, x0))

    # Training -------------------------------------------------------------------------------------------------------

    def losses(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Weighted loss of each sample, (B,), in fp32; see `terms`."""
        return self.terms(output, x0, noise, t, mask)["loss"]

    def terms(
        self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted loss of each sample and its parts, each (B,), in fp32.

        Args:
            output: Network output at x_t, (B, C or 2C, ...).
            x0: Data (B, C, ...).
            noise: The noise of `q_sample`.
            t: (B,) int64, or (B, T).
            mask: Frames (B, T) that count; frames that were given as a condition do not.

        Returns:
            `loss`; `distance` unless the loss is the bound; `vlb`, in bits per dimension, where it is used.
        """
        x_t = self.q_sample(x0, t, noise)
        if self.loss_type == "kl":
            bound = self.vlb(output, x0, x_t, t)
            return {"loss": self.vlb_weight * bound, "vlb": bound}
        predicted, values = self.split(output, x0)
        kind: Distance = self.loss_type  # type: ignore[assignment]
        each = distance(kind, predicted, self.target(x0, noise, t), self.eta)
        weight = self.weighting(self.schedule.snr[t], self.prediction)
        if t.ndim == 2 or mask is not None:
            each = each.flatten(3).mean((1, 3)) if each.ndim > 3 else each.mean(1)  # (B, T)
            each = each if weight is None else each * (weight if weight.ndim == 2 else weight[:, None])
            counted = torch.ones_like(each) if mask is None else mask.to(each.dtype)
            loss = (each * counted).sum(1) / counted.sum(1).clamp(min=1)
        else:
            loss = each.flatten(1).mean(1)
            loss = loss if weight is None else loss * weight
        terms = {"loss": loss, "distance": loss}
        if values is not None:
            frozen = torch.cat((predicted.detach(), values), dim=1)
            terms["vlb"] = self.vlb(frozen, x0, x_t, t)
            terms["loss"] = loss + self.vlb_weight * terms["vlb"]
        return terms

    def vlb(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The term of the variational bound at t, (B,) bits per dimension; at t = 0 for 8-bit data in [-1, 1]."""
        mean, log_variance, _ = self.p_mean_variance(output, x_t, t, clip=False)
        true_mean, _ = self.schedule.posterior(x0, x_t, t)
        true_log = gather(self.schedule.posterior_log_variance, t, x_t).expand_as(x_t)
        inner = normal_kl(true_mean, true_log, mean, log_variance)
        return bits(torch.where(broadcast(t == 0, x0), -discretised_log_likelihood(x0, mean, log_variance), inner))

    def prior_bits(self, x0: Tensor) -> Tensor:
        """KL of q(x_{T-1} | x0) from the standard normal, (B,) bits per dimension: what the bound has at its start."""
        alpha, sigma = self.schedule.alpha_sigma(self.full(self.steps - 1, x0), x0)
        zero = torch.zeros_like(x0)
        return bits(normal_kl(alpha * x0, 2 * sigma.log().expand_as(x0), zero, zero))

    # Sampling -------------------------------------------------------------------------------------------------------

    def split(self, output: Tensor, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction, and the variance's channels where there are any."""
        if not self.learns_variance:
            return output, None
        if output.shape[1] != 2 * like.shape[1]:
            raise ValueError(f"variance {self.variance} needs {2 * like.shape[1]} channels, got {output.shape[1]}")
        predicted, values = output.chunk(2, dim=1)
        return predicted, values

    def p_mean_variance(
        self, output: Tensor, x_t: Tensor, t: Tensor, clip: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log variance of p(x_{t-1} | x_t), and x0.

        Args:
            output: Network output at x_t, (B, C or 2C, ...).
            x_t: Noisy data (B, C, ...).
            t: (B,) int64, or (B, T).
            clip: Apply the threshold to x0, of which the mean is then made.
        """
        predicted, values = self.split(output.float(), x_t)
        x0 = self.estimate(output, x_t, t)
        x0 = self.threshold(x0) if clip else x0
        mean = predicted if self.prediction == "mean" else self.schedule.posterior(x0, x_t, t)[0]
        small = gather(self.schedule.posterior_log_variance, t, x_t)
        if values is None:
            log_variance = small if self.variance == "fixed_small" else gather(self.schedule.log_betas, t, x_t)
        elif self.variance == "learned":
            log_variance = values
        else:
            share = (values + 1) / 2
            log_variance = share * gather(self.schedule.betas.log(), t, x_t) + (1 - share) * small
        return mean, log_variance.expand_as(x_t), x0

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The x0 that the network's output means, without threshold; arguments as in `x0_eps`."""
        predicted, _ = self.split(output.float(), x_t)
        if self.prediction == "eps":  # by the tables: 1/alpha reaches 64,000 at the end of a cosine schedule
            reciprocal = gather(self.schedule.sqrt_recip_alphas_cumprod, t, x_t)
            return reciprocal * x_t - gather(self.schedule.sqrt_recipm1_alphas_cumprod, t, x_t) * predicted
        if self.prediction == "mean":
            ours, theirs = (
                gather(table, t, x_t)
                for table in (self.schedule.posterior_mean_coef1, self.schedule.posterior_mean_coef2)
            )
            return (predicted - theirs * x_t) / ours
        return predict.to_x0(self.prediction, predicted, x_t, *self.schedule.alpha_sigma(t, x_t))

    def output_of(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's output that means x0 at x_t: the inverse of `estimate`."""
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        return self.target(x0, predict.eps_of(x0, x_t, alpha, sigma), t)

    def x0_eps(self, output: Tensor, x_t: Tensor, t: Tensor, rederive: bool = False) -> tuple[Tensor, Tensor]:
        """Thresholded x0 and eps from the network's (guided) output.

        Args:
            output: Network output at x_t, (B, C or 2C, ...).
            x_t: Noisy data (B, C, ...).
            t: (B,) int64, or (B, T).
            rederive: Return the eps that leads from the thresholded x0 to x_t; otherwise the network's own.
        """
        predicted, _ = self.split(output.float(), x_t)
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        own = self.estimate(output, x_t, t)
        x0 = self.threshold(own)
        if rederive or self.prediction == "mean":
            return x0, predict.eps_of(x0 if rederive else own, x_t, alpha, sigma)
        return x0, predict.to_eps(self.prediction, predicted, x_t, alpha, sigma)

    def full(self, t: int, like: Tensor) -> Tensor:
        """The same timestep for each sample of `like`: (B,) int64."""
        return torch.full((len(like),), t, dtype=torch.long, device=like.device)
