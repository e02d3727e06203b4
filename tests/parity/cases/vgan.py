"""Case of VGAN: how a scene is composed, and its losses."""

import torch

from parity.registry import case
from vgen.losses.adversarial import generator_loss, judgement_losses
from vgen.models.vgan.module import mask_penalty
from vgen.models.vgan.networks import compose


@case("vgan", "composition_and_losses")
def composition_and_losses(vector):
    inputs = vector.tensors("in")
    real, fake = (inputs[f"logits_{name}"][:, 0] - inputs[f"logits_{name}"][:, 1] for name in ("real", "fake"))
    d_loss = torch.stack(judgement_losses(real, fake, "vanilla")).sum()
    mask = inputs["mask"].requires_grad_()
    penalty = mask_penalty(mask, 0.1)
    (gradient,) = torch.autograd.grad(penalty, mask)
    return {
        "video": compose(inputs["foreground"], mask, inputs["background"]),
        "mask_penalty": penalty,
        "mask_penalty_grad": gradient,
        "d_loss_sum": d_loss,
        "d_loss_reported": d_loss / 2,
        "g_loss": generator_loss(fake, "vanilla"),
    }
