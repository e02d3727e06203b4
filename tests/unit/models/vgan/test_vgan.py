"""VGAN: sizes, one and two streams, futures of pictures, and the losses of both sides."""

import pytest
import torch
import torch.nn.functional as F

from tests.tiny_gan import FRAMES, SIDE, batch, small_vgan, spec
from vgen.errors import UserError
from vgen.models.vgan import Discriminator, FutureGenerator, VideoGenerator
from vgen.video import ClipSpec, Field, Illustrates, Samples


def count(network):
    with torch.device("meta"):
        network.prepare(ClipSpec(32, 64, 64))
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (VideoGenerator(), 16_245_383),
        (VideoGenerator(streams="one"), 12_663_619),
        (Discriminator(), 11_057_858),
        (FutureGenerator(), 68_216_455),
        (Discriminator(128), 44_135_810),
    ],
    ids=lambda x: type(x).__name__,
)
def test_full_size_counts(network, parameters):
    assert count(network) == parameters


def test_parts_of_the_full_size():
    network = VideoGenerator()
    count(network)
    parts = [sum(p.numel() for p in getattr(network, name).parameters()) for name in ("background", "trunk")]
    parts += [sum(p.numel() for p in head.parameters()) for head in (network.to_foreground, network.to_mask)]
    assert parts == [3_577_667, 12_651_328, 12_291, 4_097]


def future(**arguments):
    return small_vgan(generator=FutureGenerator(4), mask_penalty=0.0, **arguments)


@pytest.mark.parametrize("shape", [(16, 16, 16), (32, 32, 48)])
def test_other_sizes(shape):
    for network, given in (
        (VideoGenerator(5, 2), torch.randn(2, 5)),
        (FutureGenerator(2), torch.randn(2, 1, *shape[1:])),
    ):
        network.prepare(ClipSpec(*shape, channels=1))
        judge = Discriminator(2)
        judge.prepare(ClipSpec(*shape, channels=1))
        scene = network(given)
        assert scene["video"].shape == (2, 1, *shape) and scene["mask"].shape == (2, 1, *shape)
        assert scene["background"].shape == (2, 1, *shape[1:]) and judge(scene["video"]).shape == (2, 2)


def test_a_scene_is_composed_of_its_streams():
    model = small_vgan()
    scene = model.scene(model.latents(2, seeds=[1, 2]), {})
    mask, still = scene["mask"], scene["background"][:, :, None]
    torch.testing.assert_close(scene["video"], mask * scene["foreground"] + (1 - mask) * still)
    assert 0 <= mask.min() and mask.max() <= 1
    one = small_vgan(generator=VideoGenerator(8, 2, "one"))
    assert set(one.scene(one.latents(1), {})) == {"video"}
    assert set(one.generator_loss(one.prepare(batch(2)))) == {"loss", "video"}


def test_clips_do_not_depend_on_their_batch():
    model = small_vgan()
    assert isinstance(model, Samples) and isinstance(model, Illustrates)
    together = model.sample(n=3, seeds=[5, 6, 7])
    assert together.shape == (3, 3, FRAMES, SIDE, SIDE) and model.conditions(batch()) == {}
    torch.testing.assert_close(model.sample(n=1, seeds=[7]), together[2:], atol=1e-7, rtol=1e-4)
    assert not torch.equal(together[:1], together[2:])
    with pytest.raises(UserError, match="of 16 frames, not of 17"):
        model.sample(frames=17)


def test_futures_come_from_their_picture():
    model = future()
    pictures = model.conditions(batch(2))["image"]
    assert torch.equal(pictures, batch(2)["video"][:, :, 0])
    clips = model.sample({"image": pictures}, 2)
    assert torch.equal(clips, model.sample({"image": pictures}, 2, seeds=[8, 9])), "there is no noise"
    assert not torch.equal(clips[0], clips[1])
    assert model.sample(image=torch.zeros(3, SIDE, SIDE)).shape == (1, 3, FRAMES, SIDE, SIDE)
    with pytest.raises(UserError, match="goes on from a picture"):
        model.sample()


def test_losses_are_cross_entropies():
    model = small_vgan().train()
    part = model.prepare(batch())
    logits = [model.discriminator(video) for video in (part["video"], part["scene"]["video"])]
    real, fake = (F.cross_entropy(x, torch.full((4,), label)) for x, label in zip(logits, (0, 1), strict=True))
    assert model.discriminator_loss(part)["loss"].item() == pytest.approx(float(real + fake), rel=1e-5)
    terms = model.generator_loss(part)
    fooled = F.cross_entropy(logits[1], torch.zeros(4, dtype=torch.int64))
    assert terms["video"].item() == pytest.approx(float(fooled), rel=1e-5)
    assert terms["mask"].item() == pytest.approx(0.1 * float(part["scene"]["mask"].detach().mean()), rel=1e-5)
    distance = future(picture_weight=10.0)
    part = distance.prepare(batch())
    wanted = 10 * (part["scene"]["video"][:, :, 0] - batch()["video"][:, :, 0]).abs().mean()
    terms = distance.generator_loss(part)
    assert "mask" not in terms and terms["picture"].item() == pytest.approx(float(wanted), rel=1e-5)


def test_each_side_is_trained_by_its_loss():
    model = small_vgan().train()
    part = model.prepare(batch())
    model.discriminator_loss(part)["loss"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for p in model.discriminator.parameters())
    model.generator_loss(part)["loss"].backward()  # on the very clips that were judged
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.generator.parameters())


def test_it_shows_its_streams():
    model = small_vgan().eval()
    shown = model.illustrate(batch(2), [3, 4])
    assert list(shown) == ["generated", "foreground", "mask", "background"] and isinstance(shown["mask"], Field)
    assert torch.equal(shown["generated"], model.sample(n=2, seeds=[3, 4]))
    assert torch.equal(shown["background"][:, :, 0], shown["background"][:, :, -1])
    assert shown["background"].shape == (2, 3, FRAMES, SIDE, SIDE)


def test_initial_weights():
    network = VideoGenerator(64, 16)
    network.prepare(spec())
    assert float(network.trunk[1].conv.weight.std()) == pytest.approx(0.01, rel=0.02)
    assert not network.trunk[0].conv.bias.any() and 0.9 < network.trunk[0].norm.weight.min() < 1
