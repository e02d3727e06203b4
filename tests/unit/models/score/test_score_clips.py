"""NCSN's network, EDM's augmentation, and models of clips."""

import math

import pytest
import torch
import torch.nn.functional as F

from vgen.diffusion import (
    VE,
    VP,
    Ancestral,
    ContinuousDiffusion,
    GaussianDiffusion,
    Karras,
    KarrasSampler,
    LossWeighting,
    Picard,
    PredictorCorrector,
    RespacedDDPM,
    TimeSampling,
)
from vgen.errors import UserError
from vgen.models.score import NCSN, Augmentation, Preconditioned, ScoreModel, ScoreNetwork, ScoreUNet3D
from vgen.models.score.augmentation import LABELS, flip, matrices
from vgen.models.score.networks.ncsn import InstanceNormPP
from vgen.video import ClipSpec
from vgen.weights.checkpoint import build_model, describe_model, read_model_file
from vgen.weights.export import Export, write_export

SPEC = ClipSpec(3, 8, 8, class_names=("a", "b"), condition_keys=("label",))
SMALL = {"model_channels": 8, "channel_mult": (1, 2), "heads": 2, "head_channels": 8, "groups": 4, "dropout": 0.0}


def batch(n=2):
    return {"video": torch.rand(n, 3, 3, 8, 8) * 2 - 1, "label": torch.arange(n) % 2}


def ncsn(levels=10, **more):
    first = levels is not None
    network = ScoreNetwork(
        NCSN(8, 3, 8, levels), centered=False, scale_by_sigma=not first, sigma_max=1.0, num_scales=10
    )
    process = ContinuousDiffusion(VE(0.01, 1.0), "score", reduction="half_sum", steps=10, continuous=False)
    sampler = PredictorCorrector(10, "none", "annealed_langevin", 0.22, corrector_steps=2)
    return ScoreModel(SPEC, network, process, sampler, **more)


def clips_ve():
    network = ScoreNetwork(ScoreUNet3D(**SMALL), centered=False, scale_by_sigma=True)
    process = ContinuousDiffusion(VE(), "score", reduction="half_sum")
    return ScoreModel(SPEC, network, process, PredictorCorrector(3), likelihood=True)


def clips_vp():
    network = ScoreNetwork(ScoreUNet3D(**SMALL, noise_embedding="positional"))
    sampler = PredictorCorrector(3, "euler_maruyama", "none")
    return ScoreModel(SPEC, network, ContinuousDiffusion(VP()), sampler, likelihood=True)


def clips_ddpm():
    network = ScoreNetwork(ScoreUNet3D(**SMALL, noise_embedding="positional"))
    return ScoreModel(SPEC, network, GaussianDiffusion("linear"), RespacedDDPM(3))


def clips_edm():
    process = ContinuousDiffusion(
        Karras(), "x0", TimeSampling("lognormal"), weighting=LossWeighting("edm"), label="sigma"
    )
    network = Preconditioned(ScoreUNet3D(**SMALL, label_dim=2, augment_dim=LABELS))
    return ScoreModel(SPEC, network, process, KarrasSampler(3), class_conditional=True, augmentation=Augmentation(0.5))


MAKERS = [clips_ve, clips_vp, clips_ddpm, clips_edm, ncsn, lambda: ncsn(None)]


@pytest.mark.parametrize("make", MAKERS, ids=["ve", "vp", "ddpm", "edm", "ncsn", "ncsnv2"])
def test_training_and_sampling(make):
    torch.manual_seed(0)
    model = make()
    model.loss(batch())["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in model.named_parameters() if "null" not in n)
    label = {"label": torch.tensor([0, 1])}
    clip = model.sample(label, 2, frames=4, seeds=[1, 2])
    assert clip.shape == (2, 3, 4, 8, 8) and clip.isfinite().all()
    assert torch.equal(clip[:, :, 0], clip[:, :, 1]) == isinstance(model.network, ScoreNetwork) * (
        not model._unet.clips
    )
    alone = model.sample({"label": label["label"][1:]}, 1, frames=4, seeds=[2])
    torch.testing.assert_close(clip[1:], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("make", [clips_ve, clips_edm, ncsn], ids=["ve", "edm", "ncsn"])
def test_a_checkpoint_describes_it(make, tmp_path):
    model = make()
    header = {**describe_model(model, SPEC, None), "stage": "model", "clips": 0}
    (tmp_path / "model").mkdir()
    write_export(Export(header, model.state_dict()), tmp_path / "model")
    again = build_model(read_model_file(tmp_path / "model"))
    assert again.augmentation == model.augmentation
    clips = [each.sample(batch(), 2, seeds=[1, 2]) for each in (model, again)]
    assert torch.equal(*clips)


def test_temporal_layers_see_other_frames():
    model, label = clips_vp(), torch.full((1,), 300.0)
    x = torch.randn(1, 3, 3, 8, 8)
    changed = x.clone()
    changed[:, :, 2] += 1
    difference = model.network(x, label) - model.network(changed, label)
    assert difference[:, :, 0].abs().max() > 0


@pytest.mark.parametrize("make", [clips_ve, clips_vp], ids=["ve", "vp"])
def test_likelihood_of_clips(make):
    """A network that predicts nothing leaves data as it is or shrinks it: the bits are those of a plain normal."""
    model = make()
    for p in model.network.parameters():
        p.data.zero_()
    x0 = model._samples(batch())
    bits = model.bits_per_dim(x0)
    assert bits.shape == (2,)
    if make is clips_ve:  # no drift: log2(50 sqrt(2 pi)) + 8 bits, and next to nothing for the distance
        torch.testing.assert_close(
            bits, torch.full((2,), math.log2(50 * math.sqrt(2 * math.pi)) + 8), atol=1e-3, rtol=0
        )
    else:  # dx/dt = -beta x / 2: the data are shrunk by alpha(1), of which the density has the logarithm
        alpha = math.exp(-0.25 * 19.9 - 0.05)
        base = 0.5 * math.log2(2 * math.pi) - math.log2(alpha) + 7
        assert (bits - base).abs().max() < 0.01


def test_parallel_sampling_of_frames_with_classes():
    torch.manual_seed(0)
    model = clips_ddpm()
    options = {"sampler": Picard(RespacedDDPM(6), window=3, tolerance=0.0)}
    found = model.sample(batch(), 2, seeds=[4, 5], options=options)
    expected = model.sample(batch(), 2, seeds=[4, 5], options={"sampler": RespacedDDPM(6)})
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_ncsn_trains_on_its_levels_alone():
    model = ncsn()
    t = model.diffusion.draw(500)
    label = model.diffusion.label(t)
    assert sorted(set(label.tolist())) == list(range(10))
    torch.testing.assert_close(model.network.sigmas[label], model.diffusion.schedule.sigma(t))


def test_instance_norm_pp():
    """Of one channel it is instance norm; of several the shift is how far a mean lies from the others."""
    norm = InstanceNormPP(4, levels=3)
    torch.nn.init.normal_(norm.beta)
    x, level = torch.randn(2, 4, 5, 5) + torch.randn(2, 4, 1, 1), torch.tensor([2, 0])
    mean = x.mean((2, 3))
    apart = (mean - mean.mean(1, keepdim=True)) / mean.std(1, keepdim=True)
    spread = (x - mean[..., None, None]) / x.var((2, 3), unbiased=False, keepdim=True).sqrt()
    gamma, alpha, beta = (table[level][..., None, None] for table in (norm.gamma, norm.alpha, norm.beta))
    expected = gamma * spread + beta + alpha * apart[..., None, None]
    torch.testing.assert_close(norm(x, level), expected, atol=1e-3, rtol=1e-3)
    assert not torch.equal(norm(x, level), norm(x, level * 0 + 1))


def test_augmentation_moves_pictures_as_its_labels_say():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 8, 8)
    moved, labels = Augmentation(0.0)(images)
    assert not labels[:, 1:].any() and set(labels[:, 0].tolist()) == {0.0, 1.0}
    torch.testing.assert_close(moved, flip(images, labels))
    assert torch.equal(moved[labels[:, 0] == 1], images.flip(3)[labels[:, 0] == 1])
    moved, labels = Augmentation(1.0)(torch.rand(64, 3, 4, 8, 8))
    assert moved.shape == (64, 3, 4, 8, 8) and labels.shape == (64, LABELS)
    assert (labels[:, 2:].abs() > 0).all() and moved.min() >= 0 and moved.max() <= 1
    # a quarter turn is what rot90 does, and a shift by an eighth moves one pixel of eight
    turn, shift = torch.zeros(1, LABELS), torch.zeros(1, LABELS)
    turn[0, 3:5] = torch.tensor([-1.0, 1.0])
    shift[0, 7] = 1
    for label, expected in ((turn, images.rot90(-1, (2, 3))), (shift, images.roll(1, 3))):
        grid = F.affine_grid(matrices(label).expand(64, -1, -1), [64, 3, 8, 8], align_corners=False)
        found = F.grid_sample(images, grid, align_corners=False)
        torch.testing.assert_close(found[..., 1:], expected[..., 1:], atol=1e-4, rtol=0)


def test_frames_of_a_clip_move_alike():
    torch.manual_seed(0)
    clip = torch.rand(2, 3, 1, 8, 8).expand(-1, -1, 4, -1, -1)
    moved, _ = Augmentation(1.0)(clip)
    assert torch.equal(moved[:, :, 0], moved[:, :, 3]) and not torch.equal(moved, clip)


def test_validation_sees_the_data_as_they_are(monkeypatch):
    model = clips_edm()
    monkeypatch.setattr(Augmentation, "__call__", lambda *_: pytest.fail("augmented"))
    model.eval()
    model.loss(batch())


def test_mistakes():
    with pytest.raises(UserError, match="multiples of 2"):
        ScoreModel(ClipSpec(2, 9, 8), ScoreNetwork(ScoreUNet3D(**SMALL)), GaussianDiffusion("linear"), Ancestral(2))
    with pytest.raises(UserError, match="not told of an augmentation"):
        ncsn(augmentation=Augmentation())
    process = ContinuousDiffusion(Karras(), "x0", label="sigma")
    with pytest.raises(UserError, match="9 labels, the network reads 0"):
        ScoreModel(SPEC, Preconditioned(ScoreUNet3D(**SMALL)), process, KarrasSampler(2), augmentation=Augmentation())
