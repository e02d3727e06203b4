"""Latent video diffusion: networks, auto-encoder, scaling of the latent, sampling, and the released files' names."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from tests.released import lvdm_autoencoder_state, lvdm_file
from tests.tiny_vdm import FRAMES, clip_autoencoder, frame_autoencoder, lvdm_unet, spec, unet, video_ldm
from vgen.codecs import LatentCodec, LatentScaling
from vgen.errors import UserError
from vgen.losses import LPIPS
from vgen.models.vdm import Unet3D
from vgen.models.video_ldm import (
    FAMILY,
    Autoencoder3D,
    FrameAutoencoder,
    LVDMUnet,
    PatchDiscriminator,
    VideoAutoencoder,
    VideoLDM,
    weights,
)

RELEASED: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 256,
    "attention_resolutions": [8, 4, 2],
    "num_res_blocks": 3,
    "channel_mult": [1, 2, 3, 4],
    "num_heads": 4,
    "use_temporal_transformer": False,
    "use_checkpoint": True,
    "legacy": False,
    "kernel_size_t": 1,
    "padding_t": 0,
    "temporal_length": 4,
    "use_relative_position": True,
    "use_scale_shift_norm": True,
}
SIDE = 16


def count(module):
    return sum(value.numel() for value in module.parameters())


def clips(n=2, frames=FRAMES):
    torch.manual_seed(3)
    return {"video": torch.rand(n, 3, frames, SIDE, SIDE) * 2 - 1, "path": [f"clip{i}" for i in range(n)]}


def test_full_size_counts():
    with torch.device("meta"):
        released = LVDMUnet(**weights.unet_arguments(RELEASED))
        longer = LVDMUnet(**weights.unet_arguments(RELEASED | {"temporal_length": 16}))
        autoencoder, frames = Autoencoder3D(), FrameAutoencoder()
        latent = Unet3D(128, dim_mults=(1, 2, 4, 4), channels=4)
    assert (count(released), count(longer)) == (548_904_580, 549_110_404)
    parts = [count(autoencoder.encoder) + count(autoencoder.quant_conv)]
    parts.append(count(autoencoder.decoder) + count(autoencoder.post_quant_conv))
    assert parts == [7_458_952 + 72, 11_987_715 + 20] and count(autoencoder) == sum(parts) == 19_446_759
    assert count(frames) == 83_653_863
    judge = PatchDiscriminator(2, padding=1, norm_bias=False)
    # kernels of 16 cells; biases of the first and the last; gains and biases of the norms
    assert count(judge) == 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 65 + 2 * (128 + 256 + 512)
    found = [count(released), count(autoencoder), count(frames), count(judge), count(latent)]
    assert list(FAMILY.parameters.values()) == found
    with pytest.raises(UserError, match="context_dim"):
        weights.unet_arguments(RELEASED | {"context_dim": 768})


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"resblock_updown": True, "channel_mult": (1, 2)},
        {"conv_resample": False},
        {"use_scale_shift_norm": False, "nonlinearity_type": "leaky_relu"},
        {"use_relative_position": False, "num_heads": -1, "num_head_channels": 16},
        {"kernel_size_t": 3, "padding_t": 1, "attention_resolutions": (1, 2)},
    ],
    ids=str,
)
def test_options_of_the_unet(changes):
    network, x, t = lvdm_unet(**changes).eval(), torch.randn(2, 2, 5, 8, 8), torch.tensor([3, 800])
    out = network(x, t)
    assert out.shape == x.shape and out.isfinite().all()
    if not changes.get("resblock_updown") and changes.get("conv_resample", True):
        config = weights.unet_config(network.state_dict(), num_heads=2)
        again = LVDMUnet(**config)
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in network.state_dict().items()
        }
    with pytest.raises(ValueError, match="takes no condition"):
        network(x, t, torch.zeros(2, 3))


@torch.no_grad()
def test_pictures_are_apart_in_attention():
    """GroupNorm still takes its statistics over all frames; temporal attention does not mix them."""
    attention = lvdm_unet().middle_block[1].eval()
    x = torch.randn(1, 32, 4, 4, 4)
    bias = torch.zeros(1, 4, 4)
    bias[:, 3, :3] = bias[:, :3, 3] = -torch.inf
    together, changed = attention(x, bias), x.clone()
    assert not torch.allclose(attention(x), together, atol=1e-4)
    changed[:, :, 3] = 0
    # the norm of a pixel's frames sees them all: compare attention to the values alone
    attention.norm_t = torch.nn.Identity()
    torch.testing.assert_close(attention(x, bias)[:, :, :3], attention(changed, bias)[:, :, :3])


def test_an_untrained_block_is_the_identity():
    network, x = LVDMUnet(2, 32, 2, 1, (1,), (1,), num_heads=2, padding_t=0), torch.randn(1, 32, 2, 4, 4)
    assert network(torch.randn(1, 2, 2, 4, 4), torch.tensor([5])).abs().max() == 0
    assert torch.equal(network.middle_block[1](x), x)


@pytest.mark.parametrize("build", [frame_autoencoder, clip_autoencoder], ids=["frames", "clips"])
def test_the_autoencoder_trains_and_is_a_codec(build):
    model = build(perceptual=LPIPS(random_init=True), kl_weight=1e-3).train()
    assert isinstance(model, LatentCodec)
    terms = model.loss(clips())
    assert set(terms) == {"loss", "reconstruction", "perceptual", "kl"}
    torch.testing.assert_close(terms["loss"], sum(v for k, v in terms.items() if k != "loss"))
    terms["loss"].backward()
    assert all(p.grad is not None for p in model.network.parameters())
    model.eval()
    with torch.no_grad():
        latent = model.encode(clips()["video"])
    assert {k: tuple(v.shape[1:]) for k, v in latent.items()} == model.latent_spec(model.clip_spec)
    made = model.reconstruct(clips())
    assert made.shape == (2, 3, FRAMES, SIDE, SIDE) and made.abs().max() <= 1


@pytest.mark.parametrize("build", [frame_autoencoder, clip_autoencoder], ids=["frames", "clips"])
def test_the_discriminator_pulls_with_its_share(build):
    judge = PatchDiscriminator(2, 4, 1, padding=1, norm_bias=False)
    torch.nn.init.normal_(judge.blocks[-1].conv.weight)  # of weight: the adaptive one stays below its bound
    model = build(kl_weight=0.5, image_discriminator=judge, adversarial_weight=0.25).train()
    terms = model.generator_loss(clips())
    assert set(terms) == {"loss", "reconstruction", "kl", "adversarial", "adaptive_weight"}
    shares = [torch.autograd.grad(terms[name], model.network.last_weight, retain_graph=True)[0].norm() for name in
              ("reconstruction", "adversarial")]  # fmt: skip
    torch.testing.assert_close(shares[1], 0.25 * shares[0], rtol=1e-2, atol=0)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"] + terms["adversarial"])
    assert not terms["adaptive_weight"].requires_grad
    model.zero_grad()
    model.discriminator_loss(clips())["loss"].backward()
    assert all(p.grad is None for p in model.network.parameters())
    assert all(p.grad is not None for p in judge.parameters())


def test_it_is_judged_from_a_step_on(tmp_path):
    """Two batches of reconstruction alone, then a step of each network on every batch; steps are the generator's."""
    judge = PatchDiscriminator(2, 4, 1, padding=1, norm_bias=False)
    rate = partial(torch.optim.SGD, lr=0.1)
    options = {"discriminator_start": 2, "micro_batches": 2, "optimizer": rate, "discriminator_optimizer": rate}
    model = frame_autoencoder(image_discriminator=judge, **options).train()
    seen: list[tuple[int, bool, bool, set[str]]] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, module, *args):
            self.before = [[p.detach().clone() for p in net.parameters()] for net in (model.network, judge)]

        def on_train_batch_end(self, trainer, module, *args):
            now = [list(net.parameters()) for net in (model.network, judge)]
            moved = [
                any(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
                for pair in zip(now, self.before, strict=True)
            ]
            seen.append((trainer.global_step, *moved, set(trainer.callback_metrics)))

    loader = torch.utils.data.DataLoader([clips(4)] * 4, batch_size=None)
    fixed = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(default_root_dir=tmp_path, max_epochs=1, callbacks=[Watch()], **fixed).fit(model, loader)
    assert [step[:3] for step in seen] == [(1, True, False), (2, True, False), (3, True, True), (4, True, True)]
    assert "train/d_loss" not in seen[1][3] and {"train/d_loss", "train/adversarial"} <= seen[2][3]
    with pytest.raises(UserError, match="at least 1"):
        frame_autoencoder(image_discriminator=judge, micro_batches=0)


def test_the_divergence_is_that_of_torch():
    model = frame_autoencoder(kl_weight=2.0)
    video = clips()["video"]
    with torch.no_grad():
        mean, log_variance = model._moments(video)
        kl = model.loss(clips())["kl"]
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(kl, 2.0 * each.sum() / video.numel())


@torch.no_grad()
def test_frames_by_chunks_are_the_same():
    whole, parts = frame_autoencoder(), frame_autoencoder()
    parts.network.chunk = 5
    torch.testing.assert_close(parts.reconstruct(clips()), whole.reconstruct(clips()), atol=1e-5, rtol=1e-4)


def test_pretrained_weights(tmp_path):
    torch.manual_seed(9)
    first = FrameAutoencoder(2, (8, 8), 1, norm_num_groups=4)
    first.vae.save_pretrained(tmp_path / "vae")
    second = FrameAutoencoder(2, (8, 8), 1, norm_num_groups=4, pretrained=str(tmp_path / "vae"))
    for ours, theirs in zip(second.parameters(), first.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UserError, match="no auto-encoder 'nowhere/nothing'"):
        FrameAutoencoder(pretrained="nowhere/nothing")


def test_sizes_that_cannot_be_divided_are_refused():
    with pytest.raises(UserError, match="cannot be divided by 2x2x2"):
        clip_autoencoder(spec(frames=5, side=SIDE))
    with pytest.raises(UserError, match="turns 3 channels into 3, but 2"):
        video_ldm(denoiser=unet())
    with pytest.raises(UserError, match="no single pictures"):
        video_ldm(clip_autoencoder(), images=2)
    with pytest.raises(UserError, match="needs a VideoAutoencoder"):
        VideoLDM(spec(side=SIDE), unet(channels=2), _Other())


class _Other(torch.nn.Module):
    def encode(self, video, reference=None):
        return {}

    def decode(self, latent):
        return latent

    def latent_spec(self, clip_spec):
        return {}


def test_scaling_inverts_and_standardises():
    given = LatentScaling(2, 0.5, 1.0)
    z = torch.randn(3, 2, 4, 5, 5) * 3 + 2
    torch.testing.assert_close(given(z), 0.5 * (z + 1))
    torch.testing.assert_close(given.inverse(given(z)), z)
    fitted = LatentScaling(2)
    assert not fitted.fitted
    fitted.fit([z[:1], z[1:]], lambda sums: sums)
    x0 = fitted(z).transpose(0, 1).flatten(1)
    torch.testing.assert_close(x0.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x0.std(1, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert fitted.fitted
    other = LatentScaling(2)
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other(z), fitted(z)) and other.fitted
    with pytest.raises(ValueError, match="no latent"):
        LatentScaling(2).fit([], lambda sums: sums)


@pytest.mark.parametrize("kind", ["frames", "clips", "lvdm"])
def test_it_trains_and_samples(kind):
    codec = frame_autoencoder() if kind == "frames" else clip_autoencoder()
    changes: dict[str, Any] = {"denoiser": lvdm_unet()} if kind == "lvdm" else {}
    model = video_ldm(codec, latent_scale=0.7, latent_shift=0.1, **changes).train()
    before = {k: v.clone() for k, v in model.autoencoder.state_dict().items()}
    model.loss(clips())["loss"].backward()
    assert all(p.grad is not None for p in model.denoiser.parameters())
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.autoencoder.state_dict().items())
    made = model.sample({}, 2, seeds=[1, 2])
    assert made.shape == (2, 3, FRAMES, SIDE, SIDE) and made.abs().max() <= 1
    torch.testing.assert_close(made[1:], model.sample({}, 1, seeds=[2]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.reconstruct(clips()), codec.reconstruct(clips()))


@pytest.mark.parametrize("build", [frame_autoencoder, clip_autoencoder], ids=["frames", "clips"])
def test_long_videos_go_on_in_the_latent(build):
    model = video_ldm(build(), latent_scale=0.7)
    factor, frames = model.time_factor, 15
    pieces = list(model.stream({}, 2, frames, [1, 2]))
    assert sum(piece.shape[2] for piece in pieces) == frames
    assert [piece.shape[2] for piece in pieces][:2] == [FRAMES, FRAMES - 2 * factor]
    state: dict[str, torch.Tensor] = {}
    stream = model.stream({}, 2, frames, [1, 2], None, state)
    next(stream), next(stream)
    rest = list(model.stream({}, 2, frames, [1, 2], None, dict(state)))
    assert all(torch.equal(a, b) for a, b in zip(pieces[2:], rest, strict=True))
    assert state["given"].shape[2] == 2


@torch.no_grad()
def test_a_decoder_of_clips_sees_the_frames_before():
    model = video_ldm(clip_autoencoder())
    x0 = torch.randn(1, *model.diffused_shape(FRAMES))
    whole = model.decode(x0, 0)
    torch.testing.assert_close(model.decode(x0, 2), whole[:, :, 4:])
    single = video_ldm()
    x0 = torch.randn(1, *single.diffused_shape(FRAMES))
    torch.testing.assert_close(single.decode(x0, 2), single.decode(x0, 0)[:, :, 2:], atol=1e-5, rtol=1e-4)


class _Data:
    repeatable, sampling, fingerprint = True, "uniform", "abc"
    stride, short_clips, resize = 1, "repeat_last", "letterbox"

    def ordered_train_dataloader(self):
        return [clips(2)]

    train_dataloader = ordered_train_dataloader


def test_latents_are_cached_and_measured_once(tmp_path):
    model = video_ldm(latent_scale=None, cache_latents=True).train()
    strategy = SimpleNamespace(barrier=lambda name: None)
    root = str(tmp_path)
    trainer = SimpleNamespace(datamodule=_Data(), default_root_dir=root, is_global_zero=True, strategy=strategy)
    object.__setattr__(model, "_trainer", trainer)
    model.transfer_batch_to_device = lambda batch, device, index: batch  # type: ignore[method-assign]
    model.all_gather = lambda value, **_: value[None]  # type: ignore[method-assign]
    model.header = lambda: {"init_args": {"codec": "hash"}}  # type: ignore[method-assign]
    model.on_fit_start()
    x0 = model.encode_batch(clips()).transpose(0, 1).flatten(1)
    torch.testing.assert_close(x0.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(x0.std(1), torch.ones(2), atol=1e-2, rtol=0)
    assert (tmp_path / "latents.safetensors").is_file()
    model.autoencoder.encode = None  # type: ignore[method-assign, assignment]
    model.loss(clips())  # it is not asked again
    assert model.state_dict()["scaling.fitted"]


@torch.no_grad()
def test_released_files_are_recognised():
    network, autoencoder = lvdm_unet(), clip_autoencoder().network
    content = lvdm_file(network, autoencoder)
    state = weights.unet_state(content)
    loaded = LVDMUnet(**weights.unet_config(state)).eval()
    weights.load(loaded, state)
    x, t = torch.randn(2, 2, 3, 8, 8), torch.tensor([3, 800])
    assert torch.equal(loaded(x, t), network.eval()(x, t))
    averaged = weights.averaged_state(content, [name for name, _ in network.named_parameters()])
    assert averaged is not None
    assert all(torch.equal(value, network.get_parameter(name) * 0.5) for name, value in averaged.items())
    for file in (content, {"state_dict": lvdm_autoencoder_state(autoencoder)}):
        found = weights.autoencoder_state(file)
        assert len(found) > len(autoencoder.state_dict())  # with the second names
        again = Autoencoder3D(**weights.autoencoder_config(found))
        weights.load(again, found)
        video = clips()["video"]
        assert torch.equal(again.eval().encode(video), autoencoder.encode(video))
    with pytest.raises(UserError, match="not an LVDM diffusion"):
        weights.unet_state({"state_dict": {"x": torch.zeros(1)}})
    with pytest.raises(UserError, match="not an LVDM auto-encoder"):
        weights.autoencoder_state({"state_dict": {"x": torch.zeros(1)}})


def test_released_layouts_at_full_size():
    with torch.device("meta"):
        network, autoencoder = LVDMUnet(**weights.unet_arguments(RELEASED)), Autoencoder3D()
    config = weights.unet_config(network.state_dict())
    wanted = weights.unet_arguments(RELEASED)
    assert {key: sorted(value) if key == "attention_resolutions" else value for key, value in wanted.items()} == {
        "checkpointing": True,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
    }
    assert weights.autoencoder_config(autoencoder.state_dict())["downsample"] == (4, 8, 8)


def test_it_is_described_and_built_again():
    from vgen.weights.checkpoint import describe_model, instantiate

    model = video_ldm(denoiser=unet(channels=2))
    header = describe_model(model, model.clip_spec, None)
    built = instantiate(header, model.clip_spec, "test")
    assert isinstance(built, VideoLDM) and isinstance(built.autoencoder, VideoAutoencoder)
    built.load_state_dict(model.state_dict())
    assert torch.equal(built.eval().sample({}, 1), model.sample({}, 1))
