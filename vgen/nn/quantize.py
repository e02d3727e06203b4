"""Vector quantisation with a codebook that follows the encoder (van den Oord et al. 2017, appendix A.1)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import all_reduce, broadcast, get_world_size, is_available, is_initialized

from vgen.nn.precision import FullPrecisionBuffers

_LAPLACE = 1e-7


@dataclass(frozen=True)
class Quantised:
    """What a codebook makes of latents.

    Args:
        latent: The nearest codes, (B, C, ...); gradients go to the input as if it were that.
        codes: Their numbers, (B, ...) int64.
        commitment: Mean squared distance of the latents from their codes, which pulls the encoder.
        perplexity: Exponential of the entropy of the codes of the batch: how many are in use.
    """

    latent: Tensor
    codes: Tensor
    commitment: Tensor
    perplexity: Tensor


class EMACodebook(FullPrecisionBuffers):
    """Codes as running means of the latents that are nearest to them.

    In training, every call moves counts and sums, over all ranks; the first one begins with latents of its batch. A
    code whose count falls below `restart_below` is put where some latent of the batch is. Its count and sum stay, so
    that it is put elsewhere at every step until it is used.

    Args:
        codes: Number of codes K.
        dim: Channels C of a code.
        decay: Of the running means.
        restart_below: Count below which a code is put elsewhere; 0: none ever is.
    """

    embeddings: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99, restart_below: float = 1.0) -> None:
        super().__init__()
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("embeddings", torch.randn(codes, dim))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", self.embeddings.clone())
        # A buffer: a training that goes on does not begin again.
        self.register_buffer("started", torch.tensor(False))
        self._known_to_have_started = False  # spares a look at the device in every step

    def forward(self, z: Tensor, order: Tensor | None = None) -> Quantised:
        """Quantises latents, and in training moves the codes behind it.

        Args:
            z: Latents (B, C, ...).
            order: Order of the latents at which unused codes are put; None: random.
        """
        flat = z.detach().movedim(1, -1).flatten(0, -2).float()
        if self.training and not self._known_to_have_started:
            self._start(flat)
        codes = self.nearest(flat)
        found = self.embeddings[codes].view(z.shape[0], *z.shape[2:], -1).movedim(-1, 1).to(z.dtype)
        used = torch.bincount(codes, minlength=len(self.embeddings)).float()
        if self.training:
            self._move(flat, codes, used, order)
        share = used / used.sum()
        perplexity = torch.exp(-(share * torch.log(share + 1e-10)).sum())
        latent = z + (found - z).detach()
        return Quantised(latent, codes.view(z.shape[0], *z.shape[2:]), F.mse_loss(z, found), perplexity)

    def nearest(self, flat: Tensor) -> Tensor:
        """Numbers of the codes nearest to vectors (N, C)."""
        squares = self.embeddings.square().sum(1)
        return torch.addmm(squares, flat, self.embeddings.T, alpha=-2).argmin(1)

    def lookup(self, codes: Tensor) -> Tensor:
        """The codes of numbers (...): (..., C)."""
        return F.embedding(codes, self.embeddings)

    @torch.no_grad()
    def _move(self, flat: Tensor, codes: Tensor, used: Tensor, order: Tensor | None) -> None:
        """One step of the running means.

        Args:
            flat: Latents (N, C).
            codes: Their codes (N,).
            used: How often each code was used, (K,).
            order: See `forward`.
        """
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)
        if _ranks() > 1:
            all_reduce(used), all_reduce(sums)
        self.counts.mul_(self.decay).add_(used, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + _LAPLACE) / (total + len(self.counts) * _LAPLACE) * total
        self.embeddings.copy_(self.sums / smooth[:, None])
        if self.restart_below:
            elsewhere = self._some(flat, order)
            self.embeddings.copy_(torch.where(self.counts[:, None] < self.restart_below, elsewhere, self.embeddings))

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        """Before the first step: codes are latents of the batch."""
        if not bool(self.started):
            first = self._some(flat, None)
            self.embeddings.copy_(first), self.sums.copy_(first), self.counts.fill_(1)
            self.started.fill_(True)
        self._known_to_have_started = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known_to_have_started = False

    def _some(self, flat: Tensor, order: Tensor | None) -> Tensor:
        """As many latents of the batch as there are codes, the same on all ranks; too few are repeated with noise."""
        count, (codes, dim) = len(flat), self.embeddings.shape
        if count < codes:
            flat = flat.repeat(-(-codes // count), 1)
            flat = flat + torch.randn_like(flat) * 0.01 / dim**0.5
        order = torch.randperm(len(flat), device=flat.device) if order is None else order
        chosen = flat[order[:codes]].contiguous()
        if _ranks() > 1:
            broadcast(chosen, 0)
        return chosen


def _ranks() -> int:
    return get_world_size() if is_available() and is_initialized() else 1
