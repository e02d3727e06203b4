"""Data N(MEAN, STD^2), for which every denoiser is known."""

import torch

from vgen.diffusion import prediction as predict

MEAN, STD = 0.3, 0.5


def exact_denoiser(process):
    """The exact network of the data, in the process's prediction type; `t` is the time of the process."""

    def denoise(x, t):
        alpha, sigma = alpha_sigma(process, t, x)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        eps = (x - alpha * x0) / sigma
        return predict.target(process.prediction, x0, eps, alpha, sigma)

    return denoise


def alpha_sigma(process, t, x):
    known = getattr(process, "alpha_sigma", None)
    return known(t, x) if known is not None else process.schedule.alpha_sigma(t, x)


def errors(x):
    """Distance of mean and standard deviation from the data's."""
    return abs(float(x.mean()) - MEAN), abs(float(x.std()) - STD)


def flow_of_ode(x, t, process):
    """Where the probability-flow ODE takes x at time t: to the point of the same quantile."""
    alpha, sigma = alpha_sigma(process, torch.tensor([t]), x[:1])
    return MEAN + STD * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()
