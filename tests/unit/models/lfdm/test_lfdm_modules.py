"""LFDM's two LightningModules: losses, codec, statistics, cache, sampling."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vgen.conditioning import LabelEmbedding
from vgen.diffusion import DDIM, GaussianDiffusion, Threshold
from vgen.errors import UserError
from vgen.losses import L1Pyramid
from vgen.models.lfdm import (
    LFAE,
    LFDM,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    LatentFlowAutoencoder,
    RegionPredictorConfig,
    Unet3D,
)
from vgen.models.lfdm.target import FlowTarget
from vgen.video import ClipSpec

SPEC = ClipSpec(4, 32, 32, fps=10, class_names=("left", "right"), condition_keys=("label", "text"))


def autoencoder(**changes: Any) -> LatentFlowAutoencoder:
    torch.manual_seed(0)
    network = LFAE(
        num_regions=3,
        region_predictor=RegionPredictorConfig(4, 16, 3),
        bg_predictor=BackgroundConfig(4, 16, 3),
        generator=GeneratorConfig(4, 16, 2, 1, flow_predictor=FlowPredictorConfig(4, 16, 3)),
    )
    return LatentFlowAutoencoder(SPEC, network, L1Pyramid(scales=(1, 0.5)), **changes)


def diffusion(**changes: Any) -> LFDM:
    codec = autoencoder()
    torch.manual_seed(1)
    denoiser = Unet3D(
        dim=8, dim_mults=(1, 2), channels=3 + codec.network.latent_channels, cond_dim=4, attn_heads=1, attn_dim_head=8,
        resnet_groups=2,
    )  # fmt: skip
    process = GaussianDiffusion(prediction="v", threshold=Threshold("clamp"))
    defaults: dict[str, Any] = {"diffusion": process, "sampler": DDIM(steps=3, eta=1.0)}
    return LFDM(SPEC, denoiser, codec, LabelEmbedding(4), **(defaults | changes))


def batch(n: int = 2) -> dict[str, Any]:
    torch.manual_seed(2)
    return {
        "video": torch.rand(n, 3, 4, 32, 32) * 2 - 1,
        "label": torch.arange(n) % 2,
        "text": [SPEC.class_names[i % 2] for i in range(n)],
        "path": [f"clip{i}" for i in range(n)],
    }


def test_autoencoder_loss_is_the_sum_of_its_terms_and_trains_every_network() -> None:
    model = autoencoder(occlusion_penalty=0.1)
    terms = model.loss(batch())
    assert set(terms) == {"loss", "image", "shift", "affine", "occlusion"}
    torch.testing.assert_close(terms["loss"], sum(v for k, v in terms.items() if k != "loss"))
    terms["loss"].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not without


def test_decoder_alone_is_trained_and_the_rest_stays_as_it_is() -> None:
    parts = ("generator.bottleneck", "generator.up_blocks", "generator.final")
    model = autoencoder(trainable=parts).train()
    trained = {n.removeprefix("network.") for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all(n.startswith(parts) for n in trained)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = model.optimizer([p for p in model.parameters() if p.requires_grad])
    model.loss(batch())["loss"].backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(k.removeprefix("network.").startswith(parts) for k in changed)


def test_decoder_prefix_that_fits_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="begins with any of"):
        autoencoder(trainable=("generator.decoder",))


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    network = autoencoder().network
    with pytest.raises(UserError, match="cannot be halved 3 times"):
        LatentFlowAutoencoder(ClipSpec(4, 48, 48), network, L1Pyramid())


def test_codec_shapes_and_reconstruction() -> None:
    model, clips = autoencoder().eval(), batch()
    with torch.no_grad():
        latent = model.encode(clips["video"])
    spec = model.latent_spec(SPEC)
    assert {k: tuple(v.shape[1:]) for k, v in latent.items()} == spec
    torch.testing.assert_close(model.reconstruct(clips), model.decode(latent).detach())
    other = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert not torch.equal(model.encode(clips["video"], other)["flow"], latent["flow"])


@pytest.mark.parametrize("form", ["absolute", "residual"])
@pytest.mark.parametrize("standardise", [False, True])
def test_target_inverts_and_standardises(form: Any, standardise: bool) -> None:
    target = FlowTarget(form, standardise)
    flow, occlusion = torch.rand(5, 2, 4, 8, 8) * 1.6 - 0.8, torch.rand(5, 1, 4, 8, 8)
    if standardise:
        latents = [{"flow": flow[i : i + 1], "occlusion": occlusion[i : i + 1], "features": torch.randn(1, 4, 8, 8) * 3}
                   for i in range(5)]  # fmt: skip
        target.fit(latents)
        x0 = target(flow, occlusion)
        torch.testing.assert_close(x0.mean((0, 2, 3, 4)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(x0.std((0, 2, 3, 4)), torch.ones(3), atol=1e-2, rtol=0)
        features = torch.cat([latent["features"] for latent in latents])
        torch.testing.assert_close(target.scale_features(features).square().mean(), torch.tensor(1.0))
    again = target.inverse(target(flow, occlusion))
    torch.testing.assert_close(again[0], flow)
    torch.testing.assert_close(again[1], occlusion, atol=1e-6, rtol=1e-5)


def test_a_saturated_occlusion_is_not_blown_up() -> None:
    target = FlowTarget("residual", standardise=True)
    flow = torch.rand(1, 2, 2, 4, 4)
    target.fit([{"flow": flow, "occlusion": torch.ones(1, 1, 2, 4, 4), "features": torch.ones(1, 1, 4, 4)}])
    assert float(target.std[2]) == pytest.approx(0.02)


def test_diffusion_loss_trains_the_denoiser_and_nothing_else() -> None:
    model = diffusion()
    before = {k: v.clone() for k, v in model.autoencoder.state_dict().items()}
    model.train()
    assert not model.autoencoder.training
    model.loss(batch())["loss"].backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.autoencoder.state_dict().items())
    assert sum(float(p.grad.abs().sum()) for p in model.denoiser.parameters() if p.grad is not None) > 0


def test_a_codec_that_is_no_file_travels_with_the_model() -> None:
    model, other = diffusion(), diffusion()
    with torch.no_grad():
        for parameter in model.autoencoder.parameters():
            parameter.mul_(1.1)
    other.load_state_dict(model.state_dict())
    clips = batch()
    assert torch.equal(other.reconstruct(clips), model.reconstruct(clips))


def test_clips_do_not_depend_on_their_batch() -> None:
    model, clips = diffusion(guidance=2.0), batch(3)
    conditions = model.conditions(clips)
    together = model.sample(conditions, 3, seeds=[5, 6, 7])
    alone = model.sample({k: v[2:] for k, v in conditions.items()}, 1, seeds=[7])
    torch.testing.assert_close(together[2:], alone, atol=1e-4, rtol=0)  # noise-like pictures amplify round-off
    assert not torch.equal(together, model.sample(conditions, 3, seeds=[5, 6, 8]))
    assert together.shape == (3, 3, 4, 32, 32)
    assert model.sample(conditions, 3, frames=2).shape[2] == 2


def test_person_friendly_inputs_and_their_errors() -> None:
    model = diffusion()
    picture = torch.zeros(3, 20, 40, dtype=torch.uint8)
    video = model.sample(image=picture, label="right", n=2)
    assert video.shape == (2, 3, 4, 32, 32)
    with pytest.raises(UserError) as wrong:
        model.sample(image=picture, label="rigth")
    assert "right" in str(wrong.value)
    with pytest.raises(UserError, match="first frame"):
        model.sample(label="left")
    with pytest.raises(UserError, match="seeds for"):
        model.sample(image=picture, label="left", n=2, seeds=[1])
    with pytest.raises(UserError, match="no option 'stpes'"):
        model.sample(image=picture, label="left", options={"stpes": 5})


def test_options_change_one_sampling_only() -> None:
    model = diffusion()
    conditions = model.conditions(batch())
    plain = model.sample(conditions, 2)
    assert not torch.equal(plain, model.sample(conditions, 2, options={"steps": 5}))
    assert not torch.equal(plain, model.sample(conditions, 2, options={"guidance": 3.0}))
    assert torch.equal(plain, model.sample(conditions, 2))


def test_contradictions_are_named() -> None:
    codec = autoencoder()
    narrow = Unet3D(dim=8, dim_mults=(1, 2), channels=7, cond_dim=4, attn_heads=1, attn_dim_head=8, resnet_groups=2)
    with pytest.raises(UserError, match="takes 7 channels"):
        LFDM(SPEC, narrow, codec, LabelEmbedding(4))
    with pytest.raises(UserError, match="needs a trained first stage"):
        LFDM(SPEC, narrow, None, LabelEmbedding(4))
    with pytest.raises(UserError, match="condition of 4 numbers"):
        model = diffusion()
        LFDM(SPEC, model.denoiser, codec, LabelEmbedding(6))


class _Data:
    """What `on_fit_start` asks of a DataModule."""

    repeatable, sampling, fingerprint = True, "uniform", "abc"
    stride, short_clips, resize = 1, "repeat_last", "letterbox"

    def ordered_train_dataloader(self) -> list[dict[str, Any]]:
        return [batch(2), {**batch(2), "path": ["clip2", "clip3"]}]

    train_dataloader = ordered_train_dataloader


def _fit_start(model: LFDM, folder: Any, data: _Data) -> None:
    strategy = SimpleNamespace(barrier=lambda name: None)
    trainer = SimpleNamespace(datamodule=data, default_root_dir=str(folder), is_global_zero=True, strategy=strategy)
    model._fabric = model._trainer = None  # type: ignore[assignment]
    object.__setattr__(model, "_trainer", trainer)
    model.transfer_batch_to_device = lambda b, device, index: b  # type: ignore[method-assign, assignment]
    model.all_gather = lambda value, **_: value[None]  # type: ignore[method-assign]
    model.on_fit_start()


def test_cached_latents_equal_computed_ones(tmp_path: Any) -> None:
    plain, cached = diffusion(standardise=True), diffusion(standardise=True, cache_latents=True)
    cached.header = lambda: {"init_args": {"codec": "hash"}}  # type: ignore[method-assign]
    for model in (plain, cached):
        model.train()
        _fit_start(model, tmp_path, _Data())
    assert (tmp_path / "latents.safetensors").is_file()

    def loss(model: LFDM) -> Tensor:
        torch.manual_seed(3)
        return model.loss(batch())["loss"].detach()

    torch.testing.assert_close(loss(cached), loss(plain))
    cached.autoencoder.encode = None  # type: ignore[method-assign, assignment]
    loss(cached)  # the auto-encoder is not asked again


def test_random_clips_are_not_cached(tmp_path: Any) -> None:
    model = diffusion(cache_latents=True)
    data = _Data()
    data.repeatable = False
    with pytest.raises(UserError, match="same in every epoch"):
        _fit_start(model, tmp_path, data)
