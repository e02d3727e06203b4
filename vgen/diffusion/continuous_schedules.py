"""Noise schedules in continuous time: x_t = alpha(t) x0 + sigma(t) eps, and the SDE that has these marginals.

Each is the linear SDE dx = f(t) x dt + g(t) dw (Song et al. 2021, section 3). Times are tensors of any shape, fp32 or
fp64, and so are the results; 0 is data.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class ContinuousSchedule(ABC):
    """What every schedule gives.

    Attributes:
        last: The time of (almost) pure noise, where sampling begins.
        first: The time at which training and likelihoods stop short of data.
    """

    last: float = 1.0
    first: float = 1e-5

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """Logarithm of the factor of the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """f(t) of the SDE."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) of the SDE."""

    @abstractmethod
    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr`."""

    def alpha(self, t: Tensor) -> Tensor:
        """Factor of the data."""
        return self.log_alpha(t).exp()

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2/sigma^2)."""
        return 2 * (self.log_alpha(t) - self.sigma(t).log())

    @property
    def prior_std(self) -> float:
        """Standard deviation that sampling begins with."""
        return 1.0


@dataclass(frozen=True)
class VP(ContinuousSchedule):
    """Variance preserving, the continuous form of DDPM's linear schedule (Song et al. 2021, equation 11).

    Args:
        beta_min: beta(0).
        beta_max: beta(1).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t: Tensor) -> Tensor:
        """See the base class."""
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def sigma(self, t: Tensor) -> Tensor:
        """See the base class."""
        return (1 - (2 * self.log_alpha(t)).exp()).sqrt()

    def beta(self, t: Tensor) -> Tensor:
        """Rate of the noise."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def drift(self, t: Tensor) -> Tensor:
        """See the base class."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """See the base class."""
        return self.beta(t).sqrt()

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return self._time(0.5 * F.softplus(-log_snr))

    def _time(self, depth: Tensor) -> Tensor:
        """The time at which -log alpha is `depth`."""
        rise = self.beta_max - self.beta_min
        # the root that does not subtract near-equal numbers
        return 4 * depth / (self.beta_min + (self.beta_min**2 + 4 * rise * depth).sqrt())


@dataclass(frozen=True)
class SubVP(VP):
    """VP with less noise, sigma = 1 - alpha^2 (Song et al. 2021, equation 29)."""

    def sigma(self, t: Tensor) -> Tensor:
        """See the base class."""
        return 1 - (2 * self.log_alpha(t)).exp()

    def diffusion(self, t: Tensor) -> Tensor:
        """See the base class."""
        discount = 1 - torch.exp(-2 * self.beta_min * t - (self.beta_max - self.beta_min) * t**2)
        return (self.beta(t) * discount).sqrt()

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        sigma = 2 / (1 + (1 + 4 * log_snr.exp()).sqrt())  # sigma^2 snr = alpha^2 = 1 - sigma
        return self._time(-0.5 * torch.log1p(-sigma))


@dataclass(frozen=True)
class VE(ContinuousSchedule):
    """Variance exploding, the continuous form of NCSN's noise levels (Song et al. 2021, equation 9).

    Args:
        sigma_min: sigma(0).
        sigma_max: sigma(1).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def log_alpha(self, t: Tensor) -> Tensor:
        """See the base class."""
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """See the base class."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def drift(self, t: Tensor) -> Tensor:
        """See the base class."""
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """See the base class."""
        return self.sigma(t) * math.sqrt(2 * (math.log(self.sigma_max) - math.log(self.sigma_min)))

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return (-log_snr / 2 - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        """See the base class."""
        return self.sigma_max


@dataclass(frozen=True)
class Karras(ContinuousSchedule):
    """Time is the noise level, sigma(t) = t (Karras et al. 2022, section 3).

    Args:
        sigma_min: Lowest level of sampling.
        sigma_max: Highest.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    @property
    def last(self) -> float:  # type: ignore[override]
        """See the base class."""
        return self.sigma_max

    @property
    def first(self) -> float:  # type: ignore[override]
        """See the base class."""
        return self.sigma_min

    def log_alpha(self, t: Tensor) -> Tensor:
        """See the base class."""
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """See the base class."""
        return t

    def drift(self, t: Tensor) -> Tensor:
        """See the base class."""
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """See the base class."""
        return (2 * t).sqrt()

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return (-log_snr / 2).exp()

    @property
    def prior_std(self) -> float:
        """See the base class."""
        return self.sigma_max


@dataclass(frozen=True)
class Flow(ContinuousSchedule):
    """Straight lines, alpha = 1 - t and sigma = t (Lipman et al. 2023; Liu et al. 2023)."""

    def log_alpha(self, t: Tensor) -> Tensor:
        """See the base class."""
        return torch.log1p(-t)

    def sigma(self, t: Tensor) -> Tensor:
        """See the base class."""
        return t

    def alpha(self, t: Tensor) -> Tensor:
        """See the base class."""
        return 1 - t

    def drift(self, t: Tensor) -> Tensor:
        """See the base class."""
        return -1 / (1 - t)

    def diffusion(self, t: Tensor) -> Tensor:
        """See the base class."""
        return (2 * t / (1 - t)).sqrt()

    def t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """See the base class."""
        return torch.sigmoid(-log_snr / 2)
