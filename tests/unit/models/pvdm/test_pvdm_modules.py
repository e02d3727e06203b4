"""PVDM's two LightningModules: losses, codec, conditions, cache, long videos."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_pvdm import FRAMES, HEIGHT, WIDTH, autoencoder, batch, pvdm, spec, unet
from vgen.diffusion import DDIM, DDPM, DPMSolverPP, GaussianDiffusion, Picard, UniPC
from vgen.errors import UserError
from vgen.models.pvdm.planes import join
from vgen.video import Reconstructs, Samples, Streams


def clips(n=2, frames=FRAMES):
    return batch(n, frames)


# The autoencoder ------------------------------------------------------------------------------------------------------


def test_reconstruction_loss():
    model = autoencoder(perceptual=torch.nn.MSELoss())
    terms = model.loss(clips())
    assert set(terms) == {"loss", "pixel", "perceptual", "psnr"}
    torch.testing.assert_close(terms["loss"], terms["pixel"] + terms["perceptual"])
    terms["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    video = clips()["video"]
    with torch.no_grad():
        again = model.network(video)
    torch.testing.assert_close(terms["pixel"].detach(), 4 * (again - video).abs().mean())
    squares = autoencoder(pixel_distance="l2").loss(clips())["pixel"]
    torch.testing.assert_close(squares.detach(), 4 * (again - video).square().mean())
    psnr = -10 * torch.log10(((again - video) / 2).square().mean((1, 2, 3, 4))).mean()
    torch.testing.assert_close(terms["psnr"], psnr)


def test_longer_validation_clips_are_cut():
    model, data = autoencoder(), batch(2, 2 * FRAMES + 1)
    pieces = [model.loss({"video": part})["pixel"] for part in data["video"][:, :, :-1].split(FRAMES, dim=2)]
    torch.testing.assert_close(model.loss(data)["pixel"], torch.stack(pieces).mean())


def test_adversarial_losses_train_the_right_networks():
    model = autoencoder(judged=True).train()
    terms = model.generator_loss(clips())
    assert set(terms) == {"loss", "pixel", "psnr", "adversarial", "features"}
    torch.testing.assert_close(terms["loss"], terms["pixel"] + terms["adversarial"] + terms["features"])
    judged = model.discriminator_loss(clips())
    assert set(judged) == {"loss", "image", "video"}
    judged["loss"].backward()
    assert all(p.grad is None for p in model.network.parameters())
    judges = [p for network in model.discriminators.values() for p in network.parameters()]
    assert all(p.grad is not None for p in judges)


def test_codec_and_reconstruction_of_any_length():
    model = autoencoder().eval()
    with torch.no_grad():
        latent = model.encode(clips()["video"])
    assert {k: tuple(v.shape[1:]) for k, v in latent.items()} == model.latent_spec(spec())
    for frames in (1, FRAMES, 2 * FRAMES, 2 * FRAMES + 1):
        video = batch(2, frames)["video"]
        assert model.reconstruct({"video": video}).shape == video.shape
    video = batch(2, 2 * FRAMES)["video"]
    pieces = [model.reconstruct({"video": part}) for part in video.split(FRAMES, dim=2)]
    torch.testing.assert_close(model.reconstruct({"video": video}), torch.cat(pieces, dim=2))
    assert isinstance(model, Reconstructs) and not isinstance(model, Samples)


# Training of the diffusion model --------------------------------------------------------------------------------------


def test_loss_trains_the_unet_and_nothing_else():
    model = pvdm()
    model.train()
    assert not model.autoencoder.training
    terms = model.loss(batch())
    assert set(terms) == {"loss", "vlb"} and terms["vlb"].requires_grad is False
    terms["loss"].backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert all(p.grad is not None for p in model.denoiser.parameters())


@torch.no_grad()
def test_condition_and_target_are_the_clips_halves():
    model, data = pvdm(conditional_probability=1.0), batch()
    target, condition = model._latents(data)
    halves = [model._encode(part) for part in data["video"].split(FRAMES, dim=2)]
    torch.testing.assert_close(condition, halves[0])
    torch.testing.assert_close(target, halves[1])


@torch.no_grad()
def test_without_condition_the_target_is_any_window():
    model, data = pvdm(conditional_probability=0.0, decided_by="clip"), batch(2)
    windows = model._windows(data)["windows"]
    assert windows.shape[1] == FRAMES + 1
    seen = set()
    for _ in range(40):
        target, condition = model._latents(data)
        assert condition is None
        for clip in range(2):
            found = [i for i in range(FRAMES + 1) if torch.allclose(target[clip], windows[clip, i], atol=1e-6)]
            seen.add((clip, found[0]))
    assert seen == set(itertools.product(range(2), range(FRAMES + 1)))


@torch.no_grad()
def test_a_black_first_half_is_no_condition():
    model, data = pvdm(conditional_probability=1.0), batch()
    data["video"][0, :, :FRAMES] = -1
    target, condition = model._latents(data)
    assert not condition[0].any() and condition[1].any()
    alone = pvdm(conditional_probability=0.0)
    for _ in range(10):  # whatever window is drawn
        torch.testing.assert_close(alone._latents(data)[0][0], target[0])


@pytest.mark.parametrize("decided_by, kinds", [("batch", 2), ("clip", 4)])
def test_who_decides(decided_by, kinds):
    model = pvdm(conditional_probability=0.5, decided_by=decided_by)
    torch.manual_seed(0)
    found = {tuple(model._draw(2)[0].tolist()) for _ in range(60)}
    assert len(found) == kinds


def test_share_of_conditions():
    model = pvdm(conditional_probability=0.3)
    torch.manual_seed(0)
    share = sum(bool(model._draw(4)[0][0]) for _ in range(2000)) / 2000
    assert abs(share - 0.3) < 0.04


class Data:
    """What `on_fit_start` asks of a DataModule."""

    repeatable, sampling, fingerprint = True, "chunks", "abc"
    stride, short_clips, resize = 1, "drop", "crop"

    def ordered_train_dataloader(self):
        return [batch(2), {**batch(1, seed=3), "path": ["clip2"]}]


def fit_start(model, folder, data):
    strategy = SimpleNamespace(barrier=lambda name: None)
    trainer = SimpleNamespace(datamodule=data, default_root_dir=str(folder), is_global_zero=True, strategy=strategy)
    object.__setattr__(model, "_trainer", trainer)
    model._fabric = None
    model.transfer_batch_to_device = lambda given, device, index: given
    model.header = lambda: {"init_args": {"codec": "hash"}}
    model.train()
    model.on_fit_start()


@torch.no_grad()
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_cached_latents_equal_computed_ones(tmp_path, probability):
    settings = {"conditional_probability": probability, "window_stride": FRAMES, "decided_by": "clip"}
    plain, cached = pvdm(**settings), pvdm(cache_latents=True, **settings)
    fit_start(cached, tmp_path, Data())
    plain.train()
    cached.autoencoder.encode = None  # it is not asked again
    for seed in range(4):
        found = []
        for model in (plain, cached):
            torch.manual_seed(seed)
            found.append(model._latents(batch()))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs)
    again = pvdm(cache_latents=True, **settings)
    again.autoencoder.encode = None
    fit_start(again, tmp_path, Data())  # the file is there
    with pytest.raises(TypeError):
        other = pvdm(cache_latents=True, **(settings | {"window_stride": 1}))
        other.autoencoder.encode = None
        fit_start(other, tmp_path, Data())  # other windows are another cache


def test_an_unconditional_network():
    model = pvdm(spec(), denoiser=unet(conditional=False))
    model.loss(clips())["loss"].backward()
    assert model.sample(n=1).shape == (1, 3, FRAMES, HEIGHT, WIDTH)
    with pytest.raises(UserError, match="clips of 2 frames, not 3"):
        model.sample(n=1, frames=3)


# Sampling -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_long_video_is_made_clip_by_clip():
    model = pvdm()
    video = model.sample(n=2, frames=7, seeds=[4, 5])
    assert video.shape == (2, 3, 7, HEIGHT, WIDTH)
    pieces = list(model.stream({}, 2, 7, seeds=[4, 5]))
    assert [piece.shape[2] for piece in pieces] == [2, 2, 2, 1]
    assert torch.equal(torch.cat(pieces, dim=2), video)
    state = {}
    stopped = list(itertools.islice(model.stream({}, 2, 7, seeds=[4, 5], state=state), 2))
    again = list(model.stream({}, 2, 7, seeds=[4, 5], state=state))
    assert torch.equal(torch.cat([*stopped, *again], dim=2), video)
    torch.testing.assert_close(model.sample(n=1, frames=4, seeds=[5]), video[1:, :, :4], atol=1e-4, rtol=0)
    assert not torch.equal(video[:, :, :2], video[:, :, 2:4])
    assert isinstance(model, Samples) and isinstance(model, Streams)


@torch.no_grad()
def test_every_clip_follows_the_one_before():
    """The condition is the latent that was sampled, and nothing older."""
    model, given = pvdm(), []
    network = model.denoiser.forward

    def watched(planes, time, condition=None):
        given.append(None if condition is None else join(condition))
        return network(planes, time, condition)

    model.denoiser.forward = watched
    latents = []
    decode = model.autoencoder.decode
    model.autoencoder.decode = lambda planes: latents.append(join(planes)) or decode(planes)
    model.sample(n=1, frames=3 * FRAMES)
    assert given[:3] == [None] * 3
    for piece in (1, 2):
        assert all(torch.equal(seen, latents[piece - 1]) for seen in given[3 * piece : 3 * piece + 3])


@torch.no_grad()
def test_guidance():
    model = pvdm()
    calls = []
    network = model.denoiser.forward
    model.denoiser.forward = lambda planes, *args: calls.append(len(planes["xy"])) or network(planes, *args)
    plain = model.sample(n=1, frames=4)
    assert calls == [1] * 6  # nothing is computed twice
    guided = model.sample(n=1, frames=4, options={"guidance": 2.0})
    assert calls[6:] == [1] * 3 + [2] * 3
    assert torch.equal(plain[:, :, :2], guided[:, :, :2]) and not torch.equal(plain, guided)
    calls.clear()
    model.sample(n=1, frames=6, options={"steps": 4, "next_steps": 2})
    assert len(calls) == 4 + 2 + 2
    again = model.sample(n=1, frames=4, options={"guidance": 1.0 + 1e-6})
    torch.testing.assert_close(again, plain, atol=1e-3, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("sampler", [DDPM(), DPMSolverPP(3), UniPC(3)])
def test_other_samplers(sampler):
    process = GaussianDiffusion("scaled_linear", 20, beta_ends=(0.01, 0.3))
    video = pvdm(diffusion=process).sample(n=1, frames=3, options={"sampler": sampler})
    assert video.shape == (1, 3, 3, HEIGHT, WIDTH) and video.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_parallel_sampling(guidance):
    model = pvdm(sampler=DDIM(5, eta=1.0))
    given = {"n": 2, "frames": 3 * FRAMES, "seeds": [3, 4]}
    parallel = {"sampler": Picard(DDIM(5, eta=1.0), window=3, tolerance=0.0), "guidance": guidance}
    torch.testing.assert_close(
        model.sample(**given, options=parallel),
        model.sample(**given, options={"guidance": guidance}),
        atol=1e-3,
        rtol=1e-3,
    )


def test_it_takes_no_conditions():
    model = pvdm()
    assert model.conditions({**batch(), "label": torch.zeros(2)}) == {}
    with pytest.raises(UserError, match="no class names"):
        model.sample(label="left")
    with pytest.raises(UserError, match="without conditions"):
        model.sample(image=torch.zeros(3, 16, 24))


def test_contradictions_are_named():
    with pytest.raises(UserError, match="needs a trained first stage"):
        pvdm().__class__(spec(4), unet(), None)
    with pytest.raises(UserError, match=r"two clips of the autoencoder's 2 frames, not 3"):
        pvdm(spec(3))
    with pytest.raises(UserError, match="trained at 16x24, the data is 16x16"):
        pvdm(replace(spec(4), width=16))
    with pytest.raises(UserError, match="but planes have 2"):
        pvdm(denoiser=unet(in_channels=3))
    with pytest.raises(UserError, match="cannot be halved 2 times"):
        pvdm(denoiser=unet(channel_mult=(1, 1, 1)))
    with pytest.raises(UserError, match="do not divide a clip"):
        pvdm(window_stride=3)
    with pytest.raises(UserError, match="no probability"):
        pvdm(conditional_probability=1.5)
