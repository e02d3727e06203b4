"""MoCoGAN: sizes, any length, what codes mean, categories, frames of other clips."""

import pytest
import torch
import torch.nn.functional as F

from tests.tiny_gan import CLASSES, FRAMES, SIDE, batch, small_mocogan, spec
from vgen.errors import UserError
from vgen.models.mocogan import Discriminator, VideoGenerator
from vgen.models.mocogan.weights import GENERATOR_KEYS, generator_config
from vgen.video import ClipSpec, Samples


def count(network, names=(), frames=16):
    with torch.device("meta"):
        network.prepare(ClipSpec(frames, 64, 64, class_names=names))
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("categories", "parameters"), [(6, 3_298_836), (0, 3_249_684), (3, 3_274_260), (4, 3_282_452)])
def test_full_size_generators(categories, parameters):
    assert count(VideoGenerator(categories=categories)) == parameters
    assert count(VideoGenerator(categories=None), tuple("abcdef"[:categories]) or ("x",)) >= parameters


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"dims": 2, "patches": True}, 663_296),
        ({"dims": 2}, 2_765_568),
        ({"dims": 3, "categories": 6}, 11_253_504),
        ({"dims": 3}, 11_056_896),
        ({"dims": 3, "patches": True}, 2_650_880),
    ],
    ids=str,
)
def test_full_size_discriminators(arguments, parameters):
    assert count(Discriminator(**arguments)) == parameters


def test_gru_steps_are_the_official_cell():
    generator = VideoGenerator(6, 4)
    cell = torch.nn.GRUCell(4, 4)
    generator.recurrent.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items()})
    start, noise = torch.randn(2, 4), torch.randn(2, 5, 4)
    state, wanted = start, []
    for t in range(5):
        state = cell(noise[:, t], state)
        wanted.append(state)
    torch.testing.assert_close(generator.motions(start, noise), torch.stack(wanted, dim=1))


@pytest.mark.parametrize("side", [16, 32, (32, 48)])
@pytest.mark.parametrize("patches", [False, True])
def test_other_sizes(side, patches):
    height, width = side if isinstance(side, tuple) else (side, side)
    shape = ClipSpec(18, height, width, 1)
    generator, video = VideoGenerator(6, 4, channels=2), Discriminator(3, patches, 2, categories=3)
    for network in (generator, video):
        network.prepare(shape)
    clip = generator(torch.randn(2, 6), torch.randn(2, 4), torch.randn(2, 18, 4))
    assert clip.shape == (2, 1, 18, height, width)
    scores, named = video(clip)
    assert scores.shape == ((2, 6, height // 16, width // 16) if patches else (2,)) and named.shape[:2] == (2, 3)


def test_sides_and_lengths_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="not height 40"):
        VideoGenerator().prepare(ClipSpec(16, 40, 48))
    with pytest.raises(UserError, match="12 frames is too short"):
        Discriminator(3).prepare(ClipSpec(12, 32, 32))
    with pytest.raises(UserError, match="no classes"):
        VideoGenerator(categories=None).prepare(ClipSpec(16, 32, 32))
    with pytest.raises(UserError, match="judges frames"):
        small_mocogan(video_discriminator=Discriminator(2))
    with pytest.raises(UserError, match="judges clips"):
        small_mocogan(image_discriminator=Discriminator(3))
    with pytest.raises(UserError, match="3 classes, the generator 5 categories"):
        small_mocogan(generator=VideoGenerator(6, 4, 5, 2), video_discriminator=Discriminator(3, categories=5))
    with pytest.raises(UserError, match="0 categories are named, and 5 generated"):
        small_mocogan(generator=VideoGenerator(6, 4, 5, 2), labels=False, infogan=True)
    with pytest.raises(UserError, match="there are no categories"):
        small_mocogan(labels=False, infogan=True)


def test_clips_do_not_depend_on_their_batch_and_may_be_longer():
    model = small_mocogan()
    assert isinstance(model, Samples)
    together = model.sample(n=3, seeds=[5, 6, 7], label=["left", "up", "left"])
    alone = model.sample(n=1, seeds=[7], label="left", frames=30)
    assert together.shape == (3, 3, FRAMES, SIDE, SIDE) and alone.shape[2] == 30 and together.abs().max() <= 1
    torch.testing.assert_close(alone[:, :, :FRAMES], together[2:], atol=1e-5, rtol=0)
    assert not torch.allclose(together[:1], together[2:], atol=1e-4)
    assert not torch.allclose(model.sample(n=1, seeds=[7], label="right"), together[2:], atol=1e-6)


def test_content_and_motion_may_be_of_other_seeds():
    model = small_mocogan(labels=False)
    latents = model.latents(3, 5, [1, 2, 3])
    swapped = {}
    model.clips = lambda latents, conditions: swapped.update(latents) or torch.zeros(3, 3, 5, SIDE, SIDE)
    model.sample(n=3, frames=5, seeds=[1, 2, 3], options={"content": 2})
    assert torch.equal(swapped["content"], latents["content"][1:2].expand(3, -1))
    assert torch.equal(swapped["noise"], latents["noise"]) and torch.equal(swapped["start"], latents["start"])


def test_which_conditions_it_takes():
    assert set(small_mocogan().conditions(batch())) == {"label"}
    assert small_mocogan(labels=False).conditions(batch()) == {}
    model, seen = small_mocogan(), []
    codes = model.generator.codes
    model.generator.codes = lambda *latents: seen.append(latents[3]) or codes(*latents)
    latents = model.latents(4, 2, [1, 2, 3, 4])
    model.clips(latents, {"label": torch.tensor([0, -1, 2, -1])})
    drawn = latents["category"]
    assert seen[0].tolist() == [0, int(drawn[1]), 2, int(drawn[3])]


def test_frames_are_of_other_clips_and_only_they_are_made():
    model, made = small_mocogan(video_batch=2).train(), []
    pictures = model.generator.pictures
    model.generator.pictures = lambda codes: made.append(codes) or pictures(codes)
    real = model._real(batch(5))
    assert real["image"].shape == (5, 3, SIDE, SIDE) and real["video"].shape == (2, 3, FRAMES, SIDE, SIDE)
    assert all((batch(5)["video"][i].transpose(0, 1) == real["image"][i]).flatten(1).all(1).any() for i in range(5))
    fake, category = model._fake(real)
    assert [len(codes) for codes in made] == [5, 2 * FRAMES] and category.shape == (2,)
    assert fake["image"].shape == real["image"].shape and fake["video"].shape == real["video"].shape


@pytest.mark.parametrize("labels", [False, True])
def test_each_side_is_trained_by_its_loss(labels):
    model = small_mocogan(labels=labels).train()
    for network, loss in ((model.generator, model.generator_loss), (model.discriminators, model.discriminator_loss)):
        model.zero_grad()
        terms = loss(batch())
        terms["loss"].backward()
        own = network.parameters() if network is model.generator else model.video_discriminator.parameters()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in own)
        assert ("category" in terms) == labels and terms["loss"] > 0
    assert all(p.grad is None for p in model.generator.parameters()), "the last backward pass was the discriminators'"


def test_categories_are_learned_from_real_clips_alone():
    """Cross-entropy of real clips' labels; generated ones teach the generator."""
    model = small_mocogan().eval()
    real = model._real(batch())
    _, named = model.video_discriminator(real["video"])
    terms = model.discriminator_loss(batch())
    torch.testing.assert_close(terms["category"], F.cross_entropy(named, batch()["label"]))


def test_official_names():
    generator = VideoGenerator(6, 4, 3, 2)
    generator.prepare(spec())
    names = {"recurrent.weight_ih": "recurrent.weight_ih_l0", "main.0.weight": "levels.0.conv.weight"}
    names |= {"main.10.running_var": "levels.3.norm.running_var", "main.12.weight": "to_pixel.weight"}
    assert {theirs: GENERATOR_KEYS.rename(theirs) for theirs in names} == names
    state = {"recurrent.weight_hh": torch.zeros(12, 4), "main.0.weight": torch.zeros(13, 16, 4, 4)}
    assert generator_config(state, 6) == {"content": 6, "motion": 4, "categories": len(CLASSES), "channels": 2}
    with pytest.raises(ValueError, match="no 10 of content"):
        generator_config(state, 10)
