import math

import pytest
import torch

from vgen.diffusion import (
    DDIM,
    VE,
    VP,
    Ancestral,
    ContinuousDiffusion,
    GaussianDiffusion,
    Karras,
    KarrasSampler,
    LossWeighting,
    PredictorCorrector,
    TimeSampling,
)
from vgen.errors import UserError
from vgen.models.score import ADM, Preconditioned, ScoreModel, ScoreNetwork, ScoreUNet
from vgen.video import ClipSpec

SPEC = ClipSpec(3, 8, 8, class_names=("a", "b"), condition_keys=("label",))
SMALL = {"resolution": 8, "model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
VPNET = {"noise_embedding": "positional", "taps": None, "encoder": "standard"}


def ve(**more):
    network = ScoreNetwork(ScoreUNet(**SMALL, dropout=0.0), centered=False, scale_by_sigma=True)
    return ScoreModel(
        SPEC, network, ContinuousDiffusion(VE(), "score", reduction="half_sum"), PredictorCorrector(3), **more
    )


def vp(**more):
    network = ScoreNetwork(ScoreUNet(**SMALL, **VPNET))
    return ScoreModel(SPEC, network, ContinuousDiffusion(VP()), PredictorCorrector(3, "euler_maruyama", "none"), **more)


def edm():
    process = ContinuousDiffusion(
        Karras(), "x0", TimeSampling("lognormal"), weighting=LossWeighting("edm"), label="sigma"
    )
    network = Preconditioned(ADM(8, 3, None, 8, (1, 2), 1, (4,), 4, 0.0, label_dim=2))
    return ScoreModel(SPEC, network, process, KarrasSampler(3), class_conditional=True)


def ddpm():
    network = ScoreNetwork(ScoreUNet(**SMALL, **VPNET))
    return ScoreModel(SPEC, network, GaussianDiffusion("linear"), Ancestral(3))


def batch(n=4):
    return {"video": torch.rand(n, 3, 3, 8, 8) * 2 - 1, "label": torch.arange(n) % 2}


@pytest.mark.parametrize("make", [ve, vp, edm, ddpm])
def test_training_and_sampling(make):
    model = make()
    model.loss(batch())["loss"].backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    conditions = {"label": torch.tensor([0, 1])} if model.class_conditional else {}
    both = model.sample(conditions, 2, seeds=[1, 2])
    assert both.shape == (2, 3, 3, 8, 8) and both.isfinite().all() and torch.equal(both[:, :, 0], both[:, :, 2])
    alone = model.sample({k: v[1:] for k, v in conditions.items()}, 1, seeds=[2])
    torch.testing.assert_close(both[1:], alone, atol=2e-4, rtol=1e-3)


def test_ranges():
    """VE's networks see [0, 1], and clips leave in [-1, 1]."""
    model = ve()
    frames = model._samples({"video": torch.full((1, 3, 3, 8, 8), -1.0)})
    assert not frames.any() and not model.centered and vp().centered
    model.sampler = PredictorCorrector(1)
    model.output = lambda x, t, label=None: (0.5 - x) / (t**2).view(-1, 1, 1, 1)
    assert model.sample(n=1).shape == (1, 3, 3, 8, 8)


@torch.no_grad()
@pytest.mark.parametrize("make", [vp, ve])
def test_likelihood_of_a_model_that_knows_a_gaussian(make):
    """Grey frames with noise of four bytes under the exact score of their distribution."""
    model, std = make(likelihood=True), 0.03 if make is vp else 0.015
    mean = 0.0 if make is vp else 0.5

    def exact(x, t, label=None):
        alpha, sigma = model.diffusion.alpha_sigma(t, x)
        score = -(x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
        return score if make is ve else -sigma * score

    model.output = exact
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    bits = model.bits_per_dim(mean + std * noise)
    scale = std * (256 / 2 if make is vp else 256)  # in bytes
    expected = math.log2(scale * math.sqrt(2 * math.pi * math.e))
    torch.testing.assert_close(bits, torch.full((2,), expected), atol=0.2, rtol=0)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="8x8 pixels, the data is 16x16"):
        ScoreModel(ClipSpec(1, 16, 16), vp().network, ContinuousDiffusion(VP()), PredictorCorrector(3))
    with pytest.raises(UserError, match="knows 0 classes"):
        vp(class_conditional=True)
    with pytest.raises(UserError, match="likelihoods need"):
        ScoreModel(SPEC, vp().network, GaussianDiffusion("linear"), DDIM(3), likelihood=True)
    with pytest.raises(UserError, match="needs a process in continuous time"):
        ScoreModel(SPEC, edm().network, GaussianDiffusion("linear"), DDIM(3))
    with pytest.raises(UserError, match="is told a class"):
        edm().sample(n=1)
