"""Frames behind given ones, from a model that was trained on clips alone (Ho et al. 2022, section 3.1)."""

from collections.abc import Callable

import torch
from torch import Tensor

from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.samplers import DenoiseFn


class Extended:
    """A denoiser of clips whose first frames are given.

    The given frames are replaced by noised ones at every step. Alone, that leaves the others hardly consistent with
    them; reconstruction guidance moves the estimate of the others downhill in the squared error of the network's
    reconstruction of the given ones (equation 7), for which a gradient goes through the network.

    Args:
        denoise_fn: Denoises whole clips.
        process: Its diffusion process.
        given: The first frames, clean: (B, C, A, ...).
        weight: w_r; 0 replaces alone. Paper: above 1, 50 on BAIR, 9 on Kinetics.
        noise: noise(t) of the shape of `given`, the same whenever it is asked for the same time.
    """

    def __init__(
        self,
        denoise_fn: DenoiseFn,
        process: GaussianDiffusion,
        given: Tensor,
        weight: float,
        noise: Callable[[int], Tensor],
    ) -> None:
        self.denoise_fn, self.process, self.given = denoise_fn, process, given
        self.weight, self.noise = weight, noise

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's output at x_t (B, C, T, ...) that means the given frames and the guided others.

        Args:
            x_t: Noisy clips; what stands at the given frames is not looked at.
            t: (B,) the same time for all.
        """
        length, process = self.given.shape[2], self.process
        given_t = process.q_sample(self.given, t, self.noise(int(t[0])))
        noisy = torch.cat((given_t, x_t[:, :, length:]), dim=2)
        if self.weight == 0:
            estimate = process.estimate(self.denoise_fn(noisy, t), noisy, t)
        else:
            estimate = self._guided(noisy, t)
        x0 = torch.cat((self.given, estimate[:, :, length:]), dim=2)
        return process.output_of(x0, x_t, t)

    def _guided(self, noisy: Tensor, t: Tensor) -> Tensor:
        length = self.given.shape[2]
        with torch.enable_grad():
            others = noisy[:, :, length:].detach().requires_grad_()
            joined = torch.cat((noisy[:, :, :length], others), dim=2)
            estimate = self.process.estimate(self.denoise_fn(joined, t), joined, t)
            # thresholded: far from the data an estimate says little, and its error is large
            error = (self.process.threshold(estimate)[:, :, :length] - self.given).square().sum()
            (gradient,) = torch.autograd.grad(error, others)
        alpha, _ = self.process.schedule.alpha_sigma(t, noisy)
        estimate = estimate.detach()
        moved = estimate[:, :, length:] - 0.5 * self.weight * alpha * gradient
        return torch.cat((estimate[:, :, :length], moved), dim=2)
