"""VideoGPT's first stage: the VQ-VAE (Yan et al. 2021, section 3.1)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.codecs import Latent
from vgen.errors import UserError
from vgen.models.videogpt.networks import VQVAE
from vgen.training import SingleLossModule
from vgen.video import ClipSpec

#: What the squared error of pixels in [-0.5, 0.5] is divided by; a constant of the release.
DATA_VARIANCE = 0.06
COMMITMENT = 0.25


class VideoVQVAE(SingleLossModule):
    """Reconstructs clips from a grid of discrete codes; as a codec it gives these, `codes`.

    Loss: squared error of pixels / 0.06 + 0.25 times the squared distance of latents from their codes. The codes
    themselves follow running means.

    Args:
        clip_spec: Clips; the network's factors divide their sides and length.
        network: The networks.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: VQVAE,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.network = network
        if clip_spec.channels != network.channels:
            raise UserError(f"the data has {clip_spec.channels} channels, the network {network.channels}", "network")
        network.grid(clip_spec.frames, clip_spec.height, clip_spec.width)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss terms, and how many codes are in use.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1].
        """
        video = batch["video"] / 2
        made, quantised = self.network(video)
        error = F.mse_loss(made.float(), video.float())
        terms = {"reconstruction": error / DATA_VARIANCE, "commitment": COMMITMENT * quantised.commitment.float()}
        psnr = -10 * torch.log10(error.detach())  # of values whose range is 1
        return {"loss": sum(terms.values()), **terms, "perplexity": quantised.perplexity, "psnr": psnr}  # type: ignore[dict-item]

    def encode(self, video: Tensor, reference: Tensor | None = None) -> Latent:
        """The codes (B, t, h, w) int64 of clips (B, C, T, H, W) in [-1, 1]; there is no reference frame."""
        self.network.grid(*video.shape[2:])
        return {"codes": self.network.codes_of(video / 2)}

    def decode(self, latent: Latent) -> Tensor:
        """The clips (B, C, T, H, W) in [-1, 1] of `codes`."""
        return 2 * self.network.from_codes(latent["codes"]).float().clamp(-0.5, 0.5)

    def latent_spec(self, clip_spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        """Shape of the codes of one clip."""
        return {"codes": self.network.grid(clip_spec.frames, clip_spec.height, clip_spec.width)}

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """The clips from their codes: (B, C, T, H, W) in [-1, 1]."""
        return self.decode(self.encode(batch["video"]))
