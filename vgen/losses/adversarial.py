"""Losses of adversarial training."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.nn.precision import at_least_fp32

AdversarialLoss = Literal["hinge", "vanilla"]
GANLoss = Literal["hinge", "vanilla", "wgan", "lsgan", "lsgan_signed", "ralsgan"]


def judgement_losses(real: Tensor, fake: Tensor, kind: GANLoss) -> tuple[Tensor, Tensor]:
    """Losses of a discriminator on real and on generated samples, each a mean, in fp32.

    `hinge`: relu(1 - D(x)) and relu(1 + D(G(z))) (Lim and Ye 2017). `vanilla`: -log sigmoid(D(x)) and
    -log(1 - sigmoid(D(G(z)))) (Goodfellow et al. 2014). `wgan`: -D(x) and D(G(z)) (Arjovsky et al. 2017). `lsgan`:
    squared distance to 1 and to 0 (Mao et al. 2017); `lsgan_signed`: to 1 and to -1, as TGAN has it. `ralsgan`: half
    of that of D(x) - mean D(G(z)) to 1 and of D(G(z)) - mean D(x) to 0, as MoCoGAN-HD has it (Jolicoeur-Martineau
    2019: to -1).

    Args:
        real: Logits of real samples, any shape.
        fake: Logits of generated ones.
        kind: Which loss.
    """
    real, fake = at_least_fp32(real), at_least_fp32(fake)
    if kind == "hinge":
        return F.relu(1 - real).mean(), F.relu(1 + fake).mean()
    if kind == "vanilla":
        return F.softplus(-real).mean(), F.softplus(fake).mean()
    if kind == "wgan":
        return -real.mean(), fake.mean()
    if kind == "ralsgan":
        return (real - fake.mean() - 1).square().mean() / 2, (fake - real.mean()).square().mean() / 2
    return (real - 1).square().mean(), (fake + float(kind == "lsgan_signed")).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor, kind: GANLoss = "hinge") -> Tensor:
    """Mean of the losses on real and on generated samples (see `judgement_losses`); some papers take their sum."""
    on_real, on_fake = judgement_losses(real, fake, kind)
    return (on_real + on_fake) / 2


def generator_loss(fake: Tensor, kind: GANLoss, real: Tensor | None = None) -> Tensor:
    """What a generator minimises against a discriminator of the same kind, in fp32.

    `vanilla` is the non-saturating -log sigmoid(D(G(z))); `lsgan_signed` has the target 0 (TGAN).

    Args:
        fake: Logits of generated samples, any shape.
        kind: Which loss.
        real: Logits of real samples, which `ralsgan` needs.
    """
    fake = at_least_fp32(fake)
    if kind in ("hinge", "wgan"):
        return -fake.mean()
    if kind == "vanilla":
        return F.softplus(-fake).mean()
    if kind == "ralsgan":
        assert real is not None, "a relativistic loss compares with real samples"
        on_fake, on_real = judgement_losses(fake, real, kind)  # each in the other's place
        return on_real + on_fake
    return (fake - float(kind == "lsgan")).square().mean()


def share_of_wins(real: Tensor, fake: Tensor) -> Tensor:
    """How often a discriminator finds the real one of a real and a generated sample: 0.5 is chance, 1 is always.

    The area under its receiver operating characteristic, which needs no threshold and so suits every kind of loss.
    """
    real, fake = real.detach().flatten(), fake.detach().flatten()
    return (real[:, None] > fake[None]).float().mean()


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
