"""What stands between a U-Net and its model: the conventions of score SDE, and EDM's preconditioning."""

import math

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.diffusion.preconditioning import Preconditioning
from vgen.diffusion.schedules import broadcast
from vgen.models.score.networks.adm import ADM
from vgen.models.score.networks.ncsn import NCSN
from vgen.models.score.networks.unet import ScoreUNet
from vgen.models.score.networks.unet3d import ScoreUNet3D
from vgen.nn.precision import FullPrecisionBuffers


class ScoreNetwork(Configurable, FullPrecisionBuffers):
    """A network with the inputs and outputs of score SDE's released models.

    Args:
        unet: The network.
        centered: Data is in [-1, 1]; otherwise it is in [0, 1], and centred here.
        scale_by_sigma: Divide the output by sigma, so that it is the score (VE).
        sigma_min: Of the table of noise levels that integer labels index.
        sigma_max: Likewise.
        num_scales: Likewise.
    """

    sigmas: Tensor

    def __init__(
        self,
        unet: ScoreUNet | NCSN | ScoreUNet3D,
        centered: bool = True,
        scale_by_sigma: bool = False,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        num_scales: int = 1000,
    ) -> None:
        super().__init__()
        self.unet, self.centered, self.scale_by_sigma = unet, centered, scale_by_sigma
        table = torch.linspace(math.log(sigma_max), math.log(sigma_min), num_scales, dtype=torch.float64).exp()
        self.register_buffer("sigmas", table.float(), persistent=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Runs the network.

        Args:
            x: Noisy images (B, C, H, W) or clips (B, C, T, H, W).
            label: (B,): sigma with Fourier features, otherwise the time that is embedded (VP: 999 t), or the index of a
                noise level, from the highest (NCSN, and wherever the output is scaled).

        Returns:
            The shape of x.
        """
        x = x if self.centered else 2 * x - 1
        fourier = self.unet.noise_embedding == "fourier"
        out = self.unet(x, label.float().log() if fourier else label)
        if not self.scale_by_sigma:
            return out
        sigma = label if fourier else self.sigmas[label.long()]
        return out / broadcast(sigma, out)


class Preconditioned(Configurable, nn.Module):
    """The denoiser D(x; sigma) that a network F is part of.

    Args:
        network: F.
        preconditioning: The coefficients.
    """

    def __init__(
        self,
        network: ScoreUNet | ADM | ScoreUNet3D,
        preconditioning: Preconditioning = Preconditioning(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__()
        self.network, self.preconditioning = network, preconditioning

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Denoises images or clips (B, C, ...) of noise levels sigma (B,), fp32; label and augment as the network's."""
        skip, out, scale, noise = self.preconditioning.coefficients(broadcast(sigma.float(), x))
        channels = x.shape[1]
        raw = self.network((scale * x.float()).to(x.dtype), noise.flatten(), label, augment)
        return skip * x.float() + out * raw[:, :channels].float()
