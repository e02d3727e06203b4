"""What a denoiser predicts, and the way from there to x0 and eps: the only place of these conversions.

All functions take x_t = alpha x0 + sigma eps with alpha and sigma that broadcast over x_t.

eps: the noise. x0: the data. v = alpha eps - sigma x0 (Salimans & Ho 2022, appendix D). flow = eps - x0, with
alpha = 1 - t and sigma = t (Lipman et al. 2023; Liu et al. 2023). score = -eps/sigma (Song et al. 2021). edm: the raw
network F of x0 = c_skip x + c_out F with alpha = 1 (Karras et al. 2022, equation 7). mean: that of x_{t-1} (Ho et al.
2020), which takes the tables of a discrete schedule: see `GaussianDiffusion`.
"""

from typing import Literal

from torch import Tensor

Prediction = Literal["eps", "x0", "v", "flow", "score", "edm", "mean"]
SIGMA_DATA = 0.5  # Karras et al. 2022, table 1


def edm_skip_out(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> tuple[Tensor, Tensor]:
    """c_skip and c_out of Karras et al. 2022, table 1."""
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total**0.5


def target(kind: Prediction, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should output for x_t = alpha x0 + sigma eps."""
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    if kind == "v":
        return alpha * eps - sigma * x0
    if kind == "flow":
        return eps - x0
    if kind == "score":
        return -eps / sigma
    if kind == "edm":
        skip, out = edm_skip_out(sigma)
        return (x0 - skip * (alpha * x0 + sigma * eps)) / out
    raise ValueError(f"unknown prediction {kind!r}")


def to_x0(kind: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """x0 from the network's output."""
    if kind == "eps":
        return x_t / alpha - output * (sigma / alpha)
    if kind == "x0":
        return output
    if kind == "v":
        return alpha * x_t - sigma * output
    if kind == "flow":
        return x_t - sigma * output
    if kind == "score":
        return (x_t + sigma**2 * output) / alpha
    if kind == "edm":
        skip, out = edm_skip_out(sigma)
        return skip * x_t + out * output
    raise ValueError(f"unknown prediction {kind!r}")


def to_eps(kind: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Eps from the network's output."""
    if kind == "eps":
        return output
    if kind == "v":
        return sigma * x_t + alpha * output
    if kind == "flow":
        return x_t + alpha * output
    if kind == "score":
        return -sigma * output
    return eps_of(to_x0(kind, output, x_t, alpha, sigma), x_t, alpha, sigma)


def eps_of(x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise that leads from x0 to x_t."""
    return (x_t - alpha * x0) / sigma
