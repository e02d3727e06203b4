"""Losses of adversarial training."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.nn.precision import at_least_fp32

AdversarialLoss = Literal["hinge", "vanilla"]


def discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialLoss = "hinge") -> Tensor:
    """Mean of the losses on real and on generated samples, in fp32.

    `hinge`: relu(1 - D(x)) and relu(1 + D(G(z))) (Lim and Ye 2017). `vanilla`: -log sigmoid(D(x)) and
    -log(1 - sigmoid(D(G(z)))) (Goodfellow et al. 2014).

    Args:
        real: Logits of real samples, any shape.
        fake: Logits of generated ones.
        kind: Which loss.
    """
    real, fake = at_least_fp32(real), at_least_fp32(fake)
    if kind == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def adaptive_weight(loss: Tensor, judgement: Tensor, weight: Tensor, largest: float) -> Tensor:
    """Of a discriminator's judgement, so that it pulls at the last layer as much as the reconstruction does.

    Ratio of the norms of the gradients that both send to that layer (Esser et al. 2021, equation 7), detached.

    Args:
        loss: Distance of the reconstruction from the original; its graph is kept.
        judgement: What the generator minimises against the discriminator; its graph is kept.
        weight: Weights of the decoder's last layer.
        largest: Upper bound of the ratio.
    """
    norms = [torch.autograd.grad(term, weight, retain_graph=True)[0].float().norm() for term in (loss, judgement)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=largest).detach()


def feature_matching(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean L1 distance of a discriminator's features (Wang et al. 2018, equation 4), in fp32.

    Args:
        found: Features of generated samples, one tensor for each layer.
        wanted: Those of real ones; no gradient flows to them.
    """
    pairs = zip(found, wanted, strict=True)
    return torch.stack([F.l1_loss(at_least_fp32(a), at_least_fp32(b.detach())) for a, b in pairs]).sum()
