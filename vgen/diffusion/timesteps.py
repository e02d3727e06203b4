"""Which noise level each sample of a training batch gets. All draw from the device's global generator."""

import torch
from torch import Tensor


def uniform(batch: int, steps: int, device: torch.device | None = None) -> Tensor:
    """Independent integers 0..steps-1, (B,) int64."""
    return torch.randint(0, steps, (batch,), device=device)


def stratified(batch: int, steps: int, device: torch.device | None = None) -> Tensor:
    """One integer from each of `batch` equal parts of 0..steps-1 in random order (Kingma et al. 2021, app. I.1)."""
    u = (torch.rand(1, device=device) + torch.randperm(batch, device=device) / batch) % 1
    return (u * steps).long().clamp(max=steps - 1)


def lognormal_sigmas(batch: int, mean: float = -1.2, std: float = 1.2, device: torch.device | None = None) -> Tensor:
    """Sigma with ln sigma ~ N(mean, std^2), (B,) (Karras et al. 2022, table 1)."""
    return torch.exp(mean + std * torch.randn(batch, device=device))


def logit_normal(batch: int, mean: float = 0.0, std: float = 1.0, device: torch.device | None = None) -> Tensor:
    """Times in (0, 1) with logit t ~ N(mean, std^2), (B,) (Esser et al. 2024, section 3.1)."""
    return torch.sigmoid(mean + std * torch.randn(batch, device=device))
