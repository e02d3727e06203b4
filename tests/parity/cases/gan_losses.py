"""Case of the adversarial losses and gradient penalties, on a toy discriminator and on given scores."""

import torch
import torch.nn.functional as F

from parity.registry import case
from vgen.losses.adversarial import generator_loss, judgement_losses
from vgen.losses.gradient_penalty import GradientPenalty, interpolate, squared_gradient_norms


def both(real, fake, kind):
    return torch.stack(judgement_losses(real, fake, kind)).sum()


@case("gan_losses", "gan_losses")
def gan_losses(vector):
    inputs = vector.tensors("in")

    def score(x):
        features = F.softplus(F.conv3d(x, inputs["W1"], inputs["b1"], padding=1)).mean(dim=(2, 3, 4))
        return F.linear(features, inputs["W2"], inputs["b2"])[:, 0]

    samples = inputs["real"], inputs["fake"]
    real, fake = (score(x) for x in samples)
    given = inputs["scores_real"], inputs["scores_fake"]
    r1 = squared_gradient_norms(score, samples[0])
    between = interpolate(*samples, inputs["alpha"])
    norms = squared_gradient_norms(score, between).sqrt()
    return {
        "score_real": real,
        "score_fake": fake,
        "r1_per_sample": r1,
        "r1_gamma10": GradientPenalty("r1", 10.0)(score, *samples),
        "r1_tgan2_lam0p5_sum": 0.5 * r1.sum(),
        "gp_norm": norms,
        # a penalty that draws no share: both samples are the points between
        "wgan_gp_lam10": GradientPenalty("wgan_gp", 10.0)(score, between, between),
        "hinge_d": both(real, fake, "hinge"),
        "hinge_g": generator_loss(fake, "hinge"),
        "wgan_d": both(real, fake, "wgan"),
        "ns_d": both(real, fake, "vanilla"),
        "ns_g": generator_loss(fake, "vanilla"),
        "lsgan_d_01": both(real, fake, "lsgan"),
        "lsgan_d_tgan": both(real, fake, "lsgan_signed"),
        "lsgan_g_tgan": generator_loss(fake, "lsgan_signed"),
        "ralsgan_d": both(real, fake, "ralsgan"),
        "ralsgan_g": generator_loss(fake, "ralsgan", real),
        "scores_hinge_d": both(*given, "hinge"),
        "scores_hinge_g": generator_loss(given[1], "hinge"),
        "scores_dvdgan_unofficial_hinge_g": F.relu(1 - given[1]).mean(),
        "scores_bce_d": both(*given, "vanilla"),
        "scores_bce_g": generator_loss(given[1], "vanilla"),
    }
