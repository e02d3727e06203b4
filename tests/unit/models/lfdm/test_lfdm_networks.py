import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vgen.errors import UserError
from vgen.models.lfdm import weights
from vgen.models.lfdm.networks import (
    LFAE,
    BackgroundConfig,
    BGMotionPredictor,
    FlowPredictorConfig,
    Generator,
    GeneratorConfig,
    PixelwiseFlowPredictor,
    RegionPredictor,
    RegionPredictorConfig,
    Unet3D,
)
from vgen.nn.embeddings import RotaryEmbedding, rotate
from vgen.nn.unet3d_blocks import AxialAttention, SpatialLinearAttention, split_conv
from vgen.weights.factorised_unet import SCHEDULE_BUFFERS

SMALL_UNET = {"dim": 8, "cond_dim": 5, "dim_mults": (1, 2), "channels": 7, "attn_heads": 2, "resnet_groups": 4}
FULL_UNET = {"dim": 64, "use_bert_text_cond": True, "channels": 259}
NATOPS = {"learn_null_cond": True, "use_deconv": False, "padding_mode": "reflect"}


def count(module):
    return sum(value.numel() for value in module.parameters())


def small_lfae(occlusion=True, **changes):
    flow = FlowPredictorConfig(8, 32, 3, estimate_occlusion_map=occlusion)
    groups = {
        "region_predictor": RegionPredictorConfig(8, 32, 3, pad=0),
        "bg_predictor": BackgroundConfig(4, 32, 3),
        "generator": GeneratorConfig(8, 32, num_bottleneck_blocks=1, flow_predictor=flow),
    }
    return LFAE(num_regions=4, **(groups | changes)).eval()


def small_unet(**changes):
    return Unet3D(**(SMALL_UNET | changes)).eval()


def unet_inputs(batch=2, frames=3):
    return (
        torch.randn(batch, 3, frames, 8, 8),
        torch.randint(0, 1000, (batch,)),
        torch.randn(batch, 5),
        torch.randn(batch, 4, 8, 8),
    )


def test_full_size_counts():
    with torch.device("meta"):
        lfae, mug, natops = LFAE(), Unet3D(**FULL_UNET), Unet3D(**FULL_UNET, **NATOPS)
    generator = lfae.generator
    assert count(lfae) == 66_004_557
    assert count(generator) == 45_575_391
    assert count(generator.pixelwise_flow_predictor) == 37_730_268
    assert count(generator.first) + count(generator.down_blocks) == 379_392
    assert count(generator.bottleneck) + count(generator.up_blocks) + count(generator.final) == 7_465_731
    assert count(lfae.region_predictor) == 14_146_728
    assert count(lfae.bg_predictor) == 6_282_438
    assert sum(buffer.numel() for buffer in lfae.buffers()) == 28_256
    assert (count(mug), count(natops)) == (42_731_203, 42_129_859)
    split = {
        "time_rel_pos_bias": 256,
        "init_conv": 812_288,
        "init_temporal_attn": 65_600,
        "time_mlp": 82_432,
        "downs": 18_451_584,
        "mid_block1": 5_771_264,
        "mid_block2": 5_771_264,
        "mid_spatial_attn": 524_800,
        "mid_temporal_attn": 524_800,
        "ups": 10_488_256,
        "final_conv": 119_362,
        "occlusion_map": 119_297,
    }
    assert {name: count(getattr(mug, name)) for name in split} == split
    assert sum(split.values()) == count(mug)


def test_official_key_counts():
    with torch.device("meta"):
        lfae, mug, natops = LFAE(), Unet3D(**FULL_UNET), Unet3D(**FULL_UNET, **NATOPS)
    assert len(lfae.generator.state_dict()) == 196
    assert len(lfae.region_predictor.state_dict()) == 73
    assert len(lfae.bg_predictor.state_dict()) == 37
    assert lfae.state_dict()["generator.pixelwise_flow_predictor.down.weight"].shape == (3, 1, 13, 13)
    assert lfae.state_dict()["region_predictor.regions.weight"].shape == (10, 35, 7, 7)
    assert len(official_dm(mug)) == 324
    assert len(official_dm(natops)) == 325
    assert "denoise_fn.ups.0.4.1.weight" in official_dm(natops)
    assert "denoise_fn.downs.0.2.fn.fn.to_out.bias" in official_dm(mug)


def official_dm(unet):
    """The `diffusion` dict of a DM file for our network: the nesting of the official classes put back."""
    state, rotary = {name: torch.zeros(1000) for name in SCHEDULE_BUFFERS}, {}
    attention = r"^(init_temporal_attn|mid_\w+_attn|(?:downs|ups)\.\d+\.[23])\.(norm|to_qkv|to_out)"
    for key, value in unet.state_dict().items():
        if match := re.match(attention, key):
            linear = re.search(r"s\.\d+\.2$", match[1])
            inner = "fn" if match[2] == "norm" else "fn.fn" if linear else "fn.fn.fn"
            if "spatial" not in match[1] and not linear:
                rotary[f"denoise_fn.{match[1]}.fn.fn.fn.rotary_emb.freqs"] = torch.zeros(16)
            key = key.replace(match[0], f"{match[1]}.{inner}.{match[2]}")
        state[f"denoise_fn.{key}"] = value
    return state | rotary


@pytest.mark.parametrize("variant", [{}, NATOPS], ids=["mug", "natops"])
def test_dm_file_is_recognised_and_loaded(variant):
    trained = small_unet(**variant)
    state = weights.unet_state({"diffusion": official_dm(trained), "example": 3})
    config = weights.unet_config(state, "natops" if variant else "mug") | {"resnet_groups": 4}
    loaded = Unet3D(**config).eval()
    weights.load_unet(loaded, state)
    x, t, cond, fea = unet_inputs()
    mask = torch.tensor([True, False])
    assert torch.equal(loaded(x, t, cond, fea, mask), trained(x, t, cond, fea, mask))
    assert config["use_deconv"] is not bool(variant)
    assert config["learn_null_cond"] is bool(variant)


def test_wrong_variant_is_an_error_that_names_keys():
    state = weights.unet_state({"diffusion": official_dm(small_unet(**NATOPS))})
    with pytest.raises(UserError, match="null_cond_emb"):
        weights.load_unet(small_unet(), state, "dm.pth")


def test_lfae_file_is_recognised_and_loaded():
    trained = small_lfae()
    parts = {part: getattr(trained, part).state_dict() for part in weights.LFAE_PARTS}
    state = weights.lfae_state({**parts, "avd_network": {"x": torch.zeros(1)}, "epoch_generator": 3})
    loaded = LFAE(**weights.lfae_config(state, "natops")).eval()
    weights.load_lfae(loaded, state)
    assert loaded.configuration["region_predictor"] == trained.configuration["region_predictor"]
    source, driving = torch.rand(2, 2, 3, 32, 32).unbind(0)
    with torch.no_grad():
        ours, theirs = loaded(source, driving), trained(source, driving)
    assert torch.equal(ours["prediction"], theirs["prediction"])
    with pytest.raises(UserError, match="not an LFAE checkpoint"):
        weights.lfae_state({"diffusion": {}})
    with pytest.raises(UserError, match="unknown LFDM preset"):
        weights.lfae_config(state, "taichi")


def test_configuration_of_the_released_file_is_the_default():
    with torch.device("meta"):
        lfae = LFAE()
    state = weights.lfae_state({part: getattr(lfae, part).state_dict() for part in weights.LFAE_PARTS})
    config = weights.lfae_config(state, "mug")
    assert config["region_predictor"] == RegionPredictorConfig()
    assert config["bg_predictor"] == BackgroundConfig()
    # the limit of 512 is never reached by two halvings of 64
    assert config["generator"] == GeneratorConfig(max_features=256)


def test_configuration_of_another_unet():
    with torch.device("meta"):
        unet = Unet3D(**FULL_UNET, attn_dim_head=64, dim_mults=(1, 4))
    state = weights.unet_state(official_dm(unet))
    config = weights.unet_config(state)
    assert (config["dim"], config["dim_mults"], config["channels"]) == (64, (1, 4), 259)
    assert (config["attn_heads"], config["attn_dim_head"], config["cond_dim"]) == (8, 64, 768)


@torch.no_grad()
@pytest.mark.parametrize("occlusion", [True, False])
def test_flow_of_a_clip_is_that_of_its_frames(occlusion):
    lfae, source, video = small_lfae(occlusion), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 3, 32, 32)
    flow, mask = lfae.flow(source, video)
    assert flow.shape == (2, 2, 3, 8, 8)
    frames = [lfae(source, video[:, :, i]) for i in range(3)]
    single = torch.stack([frame["optical_flow"] for frame in frames], dim=1).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(flow, single, atol=2e-5, rtol=1e-5)
    decoded = lfae.decode(source, flow, mask, chunk=4)
    predictions = torch.stack([frame["prediction"] for frame in frames], dim=2)
    torch.testing.assert_close(decoded, predictions, atol=5e-5, rtol=0)
    deformed = torch.stack([frame["deformed"] for frame in frames], dim=2)
    torch.testing.assert_close(lfae.deform(source, flow), deformed, atol=5e-5, rtol=0)
    assert lfae.encode_source(source).shape == (2, lfae.latent_channels, 8, 8)
    assert (mask is not None) == occlusion


def test_training_updates_statistics_once_per_frame_set():
    lfae = small_lfae().train()
    lfae(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    batches = lfae.region_predictor.state_dict()["predictor.encoder.down_blocks.0.norm.num_batches_tracked"]
    assert batches == 2


def test_identical_frames_give_a_finite_gradient():
    lfae, image = small_lfae().train(), torch.zeros(2, 3, 32, 32)
    out = lfae(image, image)
    (out["prediction"].sum() + out["driving_region_params"]["affine"].sum()).backward()
    assert all(value.grad.isfinite().all() for value in lfae.parameters() if value.grad is not None)


@torch.no_grad()
@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize(("estimate_affine", "pca"), [(False, True), (True, False), (False, False)])
def test_region_representations(pad, estimate_affine, pca):
    arguments = {"estimate_affine": estimate_affine, "pca_based": pca, "scale_factor": 0.25, "pad": pad}
    network = RegionPredictor(8, 4, 3, 32, 3, 0.1, **arguments).eval()
    out = network(torch.rand(2, 3, 64, 64))
    side = 16 if pad else 10
    assert out["heatmap"].shape == (2, 4, side, side)
    torch.testing.assert_close(out["heatmap"].sum((2, 3)), torch.ones(2, 4))
    if estimate_affine and not pca:
        torch.testing.assert_close(out["affine"], torch.eye(2).expand(2, 4, 2, 2))  # as initialised
    if estimate_affine or pca:
        torch.testing.assert_close(out["affine"] @ out["affine"].mT, out["covar"], atol=1e-5, rtol=1e-4)
    assert ("affine" in out) == (estimate_affine or pca)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["zero", "shift", "affine", "perspective"])
def test_background_starts_as_identity(kind):
    network = BGMotionPredictor(4, 3, 16, 2, bg_type=kind).eval()
    images = torch.rand(2, 2, 3, 16, 16)
    torch.testing.assert_close(network(images[0], images[1]), torch.eye(3).repeat(2, 1, 1))
    if kind != "zero":
        network.fc.bias.copy_(torch.arange(1.0, 1 + len(network.fc.bias)))
    rows = network(images[0], images[1])[0].flatten().tolist()
    expected = {
        "zero": [1, 0, 0, 0, 1, 0, 0, 0, 1],
        "shift": [1, 0, 1, 0, 1, 2, 0, 0, 1],
        "affine": [1, 2, 3, 4, 5, 6, 0, 0, 1],
        "perspective": [1, 2, 3, 4, 5, 6, 7, 8, 1],
    }
    assert rows == expected[kind]


@torch.no_grad()
@pytest.mark.parametrize("deformed_source", [True, False])
@pytest.mark.parametrize("covar_heatmap", [True, False])
@pytest.mark.parametrize("occlusion", [True, False])
def test_flow_predictor_options(deformed_source, covar_heatmap, occlusion):
    regions = RegionPredictor(8, 4, 3, 32, 3, 0.1, scale_factor=0.5, pca_based=True).eval()
    network = PixelwiseFlowPredictor(
        8,
        3,
        32,
        4,
        3,
        estimate_occlusion_map=occlusion,
        use_covar_heatmap=covar_heatmap,
        use_deformed_source=deformed_source,
        revert_axis_swap=True,
    ).eval()
    image = torch.rand(2, 3, 32, 32)
    params = regions(image)
    motion = network(image, params, params)
    assert motion["optical_flow"].shape == (2, 32, 32, 2)
    assert ("occlusion_map" in motion) == occlusion
    # a frame relative to itself: every motion is the identity
    sparse = network.create_sparse_motions((32, 32), params, params)
    torch.testing.assert_close(sparse, sparse[:, :1].expand_as(sparse), atol=1e-4, rtol=0)
    shift_only = {"shift": params["shift"] * 0.5, "covar": params["covar"]}
    moved = network.create_sparse_motions((32, 32), {"shift": params["shift"]}, shift_only)
    torch.testing.assert_close((moved[:, 1:] - sparse[:, 1:])[:, :, 3, 4], -0.5 * params["shift"], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("flow_net", [True, False])
def test_generator_options(skips, flow_net):
    params = {"block_expansion": 4, "num_blocks": 2, "max_features": 16, "scale_factor": 0.25} if flow_net else None
    network = Generator(3, 2, 8, 16, 2, 1, pixelwise_flow_predictor_params=params, skips=skips).eval()
    image = torch.rand(2, 3, 32, 32)
    regions = {"shift": torch.zeros(2, 2, 2), "affine": torch.eye(2).repeat(2, 2, 1, 1)}
    out = network(image, regions, regions)
    assert out["prediction"].shape == image.shape
    assert ("optical_flow" in out) == flow_net
    if flow_net and skips:  # without occlusion the official generator shows the warped source
        torch.testing.assert_close(out["prediction"], out["deformed"])


def test_split_convolution_is_the_concatenated_one():
    conv = nn.Conv3d(7, 6, (1, 7, 7), padding=(0, 3, 3)).double()
    moving, static = torch.randn(2, 3, 4, 8, 8).double(), torch.randn(2, 4, 8, 8).double().requires_grad_()
    joined = torch.cat((moving, static[:, :, None].expand(-1, -1, 4, -1, -1)), dim=1)
    split, whole = split_conv(conv, moving, static), conv(joined)
    torch.testing.assert_close(split, whole)
    gradients = [
        torch.autograd.grad(y.square().sum(), (static, conv.weight), retain_graph=True) for y in (split, whole)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def plain_norm(norm, x):
    """LayerNorm over channels as a formula on (B, C, T, H, W)."""
    variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + norm.eps) * norm.gamma


def gradients(outputs, module, x):
    return torch.autograd.grad(outputs.square().sum(), [x, *module.parameters()])


@pytest.mark.parametrize("axis", ["time", "space"])
@pytest.mark.parametrize("side", [2, 4], ids=["turned activations", "turned weights"])
def test_axial_attention_is_the_textbook_one(axis, side):
    block = AxialAttention(6, heads=2, dim_head=10, axis=axis).double()
    x = torch.randn(2, 6, 5, side, side, dtype=torch.float64, requires_grad=True)
    bias, angles = None, None
    if axis == "time":
        bias = torch.randn(2, 5, 5, dtype=torch.float64)
        angles = tuple(table.double() for table in RotaryEmbedding(8)(5))
    tokens = plain_norm(block.norm, x)
    tokens = tokens.permute(0, 3, 4, 2, 1) if axis == "time" else tokens.permute(0, 2, 3, 4, 1).flatten(2, 3)
    q, k, v = block.to_qkv(tokens).unflatten(-1, (3, 2, 10)).movedim(-3, 0).transpose(-3, -2)
    q = q * 10**-0.5
    if angles is not None:
        q, k = rotate(q, *angles), rotate(k, *angles)
    logits = q @ k.mT + (0 if bias is None else bias)
    out = block.to_out((logits.softmax(-1) @ v).transpose(-3, -2).flatten(-2))
    out = out.permute(0, 4, 3, 1, 2) if axis == "time" else out.unflatten(2, (side, side)).permute(0, 4, 1, 2, 3)
    found = block(x, bias, angles)
    torch.testing.assert_close(found, x + out)
    for ours, theirs in zip(gradients(found, block, x), gradients(x + out, block, x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_linear_attention_is_the_textbook_one():
    block = SpatialLinearAttention(6, heads=2, dim_head=8).double()
    x = torch.randn(2, 6, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    frames = plain_norm(block.norm, x).transpose(1, 2).flatten(0, 1)
    q, k, v = block.to_qkv(frames).flatten(2).unflatten(1, (3, 2, 8)).unbind(1)
    context = torch.einsum("nhdp,nhep->nhde", k.softmax(-1), v)
    out = torch.einsum("nhde,nhdp->nhep", context, q.softmax(-2) * 8**-0.5)
    out = x + block.to_out(out.reshape(6, 16, 4, 4)).unflatten(0, (2, 3)).transpose(1, 2)
    found = block(x)
    torch.testing.assert_close(found, out)
    for ours, theirs in zip(gradients(found, block, x), gradients(out, block, x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_frozen_network_may_have_another_memory_layout():
    """Channels last, as outside of training, changes no number: fp64 tells."""
    lfae, source, video = small_lfae().double(), torch.rand(2, 3, 32, 32).double(), torch.rand(2, 3, 3, 32, 32).double()
    with torch.no_grad():
        fast = [*lfae.flow(source, video), lfae.encode_source(source)]
        assert fast[2].is_contiguous(memory_format=torch.channels_last)
        for module in lfae.modules():
            if not isinstance(module, nn.BatchNorm2d):
                module.training = True  # the layout of training, with the statistics of evaluation
        slow = [*lfae.flow(source, video), lfae.encode_source(source)]
        assert slow[2].is_contiguous()
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_guidance_in_one_batch_is_two_forwards():
    unet = small_unet()
    x, t, cond, fea = unet_inputs()
    everything, nothing = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    with_cond, without = unet(x, t, cond, fea), unet(x, t, cond, fea, everything)
    torch.testing.assert_close(unet(x, t, cond, fea, nothing), with_cond)
    guided = unet.forward_with_guidance(x, t, cond, fea, scale=2.5)
    torch.testing.assert_close(guided, without + 2.5 * (with_cond - without), atol=1e-5, rtol=1e-5)
    assert torch.equal(unet.forward_with_guidance(x, t, cond, fea, scale=0), without)
    masked = unet.forward_with_guidance(x, t, cond, fea, scale=2.5, null_mask=torch.tensor([True, False]))
    torch.testing.assert_close(masked[:1], without[:1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"use_deconv": False, "padding_mode": "reflect"},
        {"learn_null_cond": True},
        {"use_final_activation": True},
        {"use_sparse_linear_attn": False},
        {"attn_dim_head": 48},  # rotates the first 32 features
        {"attn_dim_head": 8, "dim_mults": (1, 2, 3), "init_kernel_size": 3, "resnet_groups": 2},
        {"out_grid_dim": 4, "out_conf_dim": 2},
    ],
    ids=str,
)
def test_unet_options(changes):
    unet = small_unet(**changes)
    x, t, cond, fea = unet_inputs()
    out = unet(x, t, cond, fea, torch.tensor([True, False]))
    assert out.shape == (2, unet.out_channels, 3, 8, 8)
    joined = torch.cat((x, fea[:, :, None].expand(-1, -1, 3, -1, -1)), dim=1)
    torch.testing.assert_close(unet(joined, t, cond, None, torch.tensor([True, False])), out, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_unconditional_unet():
    unet = small_unet(cond_dim=None)
    x, t, _, fea = unet_inputs()
    torch.testing.assert_close(unet.forward_with_guidance(x, t, None, fea, scale=3.0), unet(x, t, None, fea))
    with pytest.raises(ValueError, match="expects a condition"):
        small_unet()(x, t, None, fea)


def test_autocast_trains_and_keeps_coordinates_fp32():
    lfae, unet = small_lfae().train(), small_unet().train()
    x, t, cond, fea = unet_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = lfae(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
        loss = out["prediction"].float().mean() + unet(x, t, cond, fea).float().square().mean()
    loss.backward()
    kept = ("shift", "covar", "affine", "heatmap")
    assert all(out["driving_region_params"][name].dtype == torch.float32 for name in kept)
    assert out["optical_flow"].dtype == torch.float32
    assert all(value.grad.isfinite().all() for value in unet.parameters())


def test_position_bias_learns():
    unet = small_unet().train()
    x, t, cond, fea = unet_inputs()
    F.mse_loss(unet(x, t, cond, fea), x).backward()
    assert unet.time_rel_pos_bias.relative_attention_bias.weight.grad.abs().sum() > 0
    unused = [name for name, value in unet.named_parameters() if value.grad is None]
    assert not unused


def test_recipes_merge_deeply():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "network")
    options = ["class_path=vgen.models.lfdm.networks.LFAE", "init_args.generator.flow_predictor.num_blocks=3"]
    options += ["init_args.generator.max_features=64", "init_args.num_regions=6"]
    config = parser.parse_args([f"--network.{option}" for option in options])
    generator = config.network.init_args.generator
    assert generator.flow_predictor.num_blocks == 3
    assert generator.block_expansion == 64
    with torch.device("meta"):
        built = parser.instantiate(config).network
    assert built.configuration["generator"]["flow_predictor"]["num_blocks"] == 3
    with torch.device("meta"):
        again = LFAE(**built.configuration)  # a checkpoint holds plain data
    assert again.configuration == built.configuration
