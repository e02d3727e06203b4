"""VDM's LightningModule: loss, pictures beside clips, sampling, and going on behind a clip."""

import pytest
import torch

from tests.tiny_vdm import CLASSES, FRAMES, SIDE, lvdm_unet, spec, unet, vdm, video_ldm
from vgen.conditioning import LabelEmbedding
from vgen.diffusion import DDIM, Ancestral, DPMSolverPP, GaussianDiffusion, Picard, UniPC
from vgen.errors import UserError
from vgen.models.vdm import VDM
from vgen.video import ClipSpec, Samples, Streams


def batch(n=3):
    torch.manual_seed(2)
    labels = torch.arange(n) % 2
    return {
        "video": torch.rand(n, 3, FRAMES, SIDE, SIDE) * 2 - 1,
        "label": labels,
        "text": [CLASSES[i] for i in labels.tolist()],
    }


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("images", [0, 4])
def test_the_loss_trains_every_weight(labels, images):
    model = vdm(labels=labels, images=images, null_probability=0.5 if labels else 0.0).train()
    torch.manual_seed(0)
    loss = model.loss(batch())["loss"]
    loss.backward()
    assert loss.isfinite() and loss > 0
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not without


def test_pictures_are_frames_of_other_clips_with_their_conditions():
    model, n, count = vdm(labels=True, images=50), 3, 50
    x0 = torch.arange(n).float().view(n, 1, 1, 1, 1) * 10 + torch.arange(FRAMES).view(1, 1, -1, 1, 1)
    x0 = x0.expand(n, 3, FRAMES, SIDE, SIDE)
    given = {"cond": torch.arange(n).float()[:, None].expand(n, 4), "null_mask": torch.tensor([True, False, False])}
    joined, inputs = model._with_images(x0, given)
    assert joined.shape == (n, 3, FRAMES + count, SIDE, SIDE) and inputs["images"] == count
    assert torch.equal(joined[:, :, :FRAMES], x0)
    pictures = joined[:, 0, FRAMES:, 0, 0]
    owners = (pictures // 10).long()
    assert all(set(owners[i].tolist()) == set(range(n)) - {i} for i in range(n))
    assert set((pictures % 10).flatten().long().tolist()) == set(range(FRAMES))
    assert torch.equal(inputs["cond"][:, FRAMES:, 0], owners.float())
    assert torch.equal(inputs["null_mask"][:, FRAMES:], owners == 0)
    alone, _ = model._with_images(x0[:1], {})  # no other clip is there
    assert alone.shape[2] == FRAMES + count


def test_clips_do_not_depend_on_their_batch():
    model = vdm(labels=True, guidance=2.0)
    assert isinstance(model, Samples) and isinstance(model, Streams)
    together = model.sample({}, 3, seeds=[5, 6, 7], label=["left", "right", "left"], frames=15)
    alone = model.sample({}, 1, seeds=[7], label="left", frames=15)
    assert together.shape == (3, 3, 15, SIDE, SIDE)
    torch.testing.assert_close(together[2:], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(together[:1], together[2:], atol=1e-2)
    assert not torch.allclose(model.sample({}, 1, seeds=[7], label="right"), alone[:, :, :FRAMES], atol=1e-3)


@pytest.mark.parametrize("frames", [4, FRAMES, FRAMES + 1, 20])
def test_pieces_are_the_video(frames):
    model = vdm()
    pieces = list(model.stream({}, 2, frames, [1, 2]))
    sizes = [piece.shape[2] for piece in pieces]
    assert sum(sizes) == frames and max(sizes) <= FRAMES
    assert sizes[0] == min(frames, FRAMES) and all(size <= FRAMES - 2 for size in sizes[1:])
    whole = torch.cat(pieces, dim=2)
    assert torch.equal(model.sample({}, 2, frames, [1, 2]), whole)
    assert torch.equal(model.sample({}, 2, seeds=[1, 2])[:, :, :frames], whole[:, :, :FRAMES])
    assert whole.abs().max() <= 1 and not whole.requires_grad


@pytest.mark.parametrize("after", [1, 3])
def test_a_stream_goes_on_to_the_bit(after):
    model = vdm(labels=True)
    conditions = model.batch_conditions(2, label=["left", "right"])
    whole = list(model.stream(conditions, 2, 18, [1, 2], {"steps": 2}))
    state = {}
    stream = model.stream(conditions, 2, 18, [1, 2], {"steps": 2}, state)
    for _ in range(after):
        next(stream)
    stream.close()
    kept = {name: value.clone() for name, value in state.items()}
    rest = list(vdm(labels=True).stream(conditions, 2, 18, [1, 2], {"steps": 2}, kept))
    assert len(whole) == 4 and len(rest) == 4 - after
    assert all(torch.equal(a, b) for a, b in zip(whole[after:], rest, strict=True))
    assert kept["frames"] == 18 and not list(model.stream(conditions, 2, 18, [1, 2], {"steps": 2}, kept))


def test_a_stream_keeps_the_mode():
    model = vdm().train()
    stream = model.stream({}, 1, 10)
    next(stream)
    assert not model.training
    stream.close()
    assert model.training


def test_a_clip_begins_with_what_is_given():
    model, seen = vdm(), []
    first = next(model.stream({}, 1, 12, [3]))
    model.denoiser.register_forward_hook(lambda module, args, out: seen.append(args[0].detach()))
    picture = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    made = model.sample({"image": picture}, 1, 12, [3])
    torch.testing.assert_close(made[:, :, 0], picture)
    assert not torch.allclose(made[:, :, 1], first[:, :, 1], atol=1e-3)
    assert len(seen) == 9  # three clips of three steps
    # behind the first clip, the network sees the noisy end of the one before
    t = model.sampler.times(1000)[2][0]
    alpha, sigma = model.diffusion.schedule.alpha_sigma(torch.tensor([t]), picture[:, :, None])
    noise = (seen[5][:, :, :2] - alpha * made[:, :, 4:6]) / sigma
    assert abs(float(noise.mean())) < 0.3 and abs(float(noise.std()) - 1) < 0.3


def test_options():
    model = vdm(sampler=Ancestral(4))
    plain = model.sample({}, 1, 12)
    for options in ({"steps": 2}, {"next_steps": 2}, {"reconstruction": 0.0}, {"context": 3}, {"variance": 1.0}):
        assert not torch.equal(model.sample({}, 1, 12, options=options), plain), options
    assert torch.equal(model.sample({}, 1, 12), plain)
    assert torch.equal(model.sample({}, 1, 12, options={"next_steps": 2})[:, :, :FRAMES], plain[:, :, :FRAMES])
    for sampler in (DPMSolverPP(3), UniPC(3), DDIM(3), Ancestral(2, 0.3, 0.1)):
        clip = model.sample({}, 1, 10, options={"sampler": sampler})
        assert clip.shape[2] == 10 and clip.isfinite().all()
    with pytest.raises(UserError, match="no option 'stpes'"):
        model.sample({}, 1, options={"stpes": 2})
    for context in (0, FRAMES):
        with pytest.raises(UserError, match="cannot go on"):
            model.sample({}, 1, 12, options={"context": context})


def test_guidance_that_grows_over_the_frames():
    model = vdm(labels=True, guidance=2.0, sampler=DDIM(3, eta=0.0))
    given = {"n": 1, "seeds": [3], "label": "left"}
    plain = model.sample({}, **given)
    torch.testing.assert_close(model.sample({}, **given, options={"guidance_last": 2.0}), plain)
    grown = model.sample({}, **given, options={"guidance": 1.0, "guidance_last": 3.0})
    assert not torch.allclose(grown, plain, atol=1e-3)


@pytest.mark.parametrize("labels", [False, True])
def test_frames_with_times_of_their_own(labels):
    """Given frames are shown as they are, at time 0; one time for all frames is the plain network."""
    model, seen = vdm(labels=labels, frame_times=True), []
    model.loss(batch())["loss"].backward()
    x, t = torch.randn(2, 3, FRAMES, SIDE, SIDE), torch.tensor([3, 700])
    inputs = {"cond": torch.randn(2, 4)} if labels else {}
    each = model.denoiser(x, t[:, None].expand(-1, FRAMES), **inputs)
    torch.testing.assert_close(each, model.denoiser(x, t, **inputs))
    model.denoiser.register_forward_hook(lambda module, args, out: seen.append((args[0], args[1])))
    picture = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    label = {"label": "left"} if labels else {}
    made = model.sample({"image": picture}, 1, 10, [3], **label)
    torch.testing.assert_close(made[:, :, 0], picture)
    frames, times = seen[0]
    assert torch.equal(frames[:, :, 0], picture) and times.shape == (1, FRAMES)
    assert times[0, 0] == 0 and (times[0, 1:] == 999).all()
    frames, times = seen[-1]
    torch.testing.assert_close(frames[:, :, :2], made[:, :, 4:6])
    with pytest.raises(UserError, match="one time for all frames"):
        video_ldm(denoiser=lvdm_unet(), frame_times=True)


def test_parallel_sampling():
    model = vdm(labels=True, guidance=2.0, sampler=DDIM(5, eta=1.0))
    given = {"n": 2, "seeds": [3, 4], "label": ["left", "right"]}
    parallel = {"sampler": Picard(DDIM(5, eta=1.0), window=3, tolerance=0.0)}
    torch.testing.assert_close(
        model.sample({}, **given, options=parallel), model.sample({}, **given), atol=1e-3, rtol=1e-3
    )
    with pytest.raises(UserError, match="goes on behind given frames with frame_times alone"):
        model.sample({}, **given, frames=10, options=parallel)
    own = vdm(labels=True, sampler=DDIM(5, eta=1.0), frame_times=True)
    torch.testing.assert_close(
        own.sample({}, **given, frames=10, options=parallel), own.sample({}, **given, frames=10), atol=1e-3, rtol=1e-3
    )


def test_contradictions_are_named():
    with pytest.raises(UserError, match="turns 4 channels into 4, but 3"):
        VDM(spec(), unet(channels=4))
    with pytest.raises(UserError, match="multiples of 2"):
        VDM(spec(side=9), unet())
    with pytest.raises(UserError, match="there is no conditioner"):
        VDM(spec(labels=True), unet(cond_dim=4))
    with pytest.raises(UserError, match="condition of none, but the conditioner gives 4"):
        VDM(spec(labels=True), unet(), LabelEmbedding(4))
    with pytest.raises(UserError, match="condition of 5 numbers"):
        VDM(spec(labels=True), unet(cond_dim=5), LabelEmbedding(4))


def test_it_asks_for_nothing_where_it_is_unconditional():
    assert vdm().conditions(batch()) == {}
    assert set(vdm(labels=True).conditions(batch())) == {"label", "text"}


@pytest.mark.slow
def test_it_learns_one_clip():
    """What it makes is then much nearer to the clip than the clip's mean is."""
    torch.manual_seed(0)
    clip = torch.zeros(1, 3, 4, SIDE, SIDE)
    for t in range(4):
        clip[:, :, t, 2:4, t : t + 2] = 1.0
    process = GaussianDiffusion(prediction="x0")
    model = VDM(ClipSpec(4, SIDE, SIDE), unet(dim=16), diffusion=process, sampler=DDIM(10, eta=0.0)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss({"video": clip.expand(4, -1, -1, -1, -1)})["loss"].backward()
        optimizer.step()
    error = (model.sample({}, 2) - clip).square().mean()
    assert error < 0.3 * (clip - clip.mean()).square().mean()
