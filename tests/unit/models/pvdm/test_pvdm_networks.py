"""PVDM's networks: sizes, geometry, quirks, and what may not change a number."""

import pytest
import torch

from vgen.errors import UserError
from vgen.models.pvdm import PatchDiscriminator, PlaneUNet, ViTAutoencoder
from vgen.models.pvdm.networks import unet as unet_file
from vgen.models.pvdm.networks.transformer import RotaryGrid, space_angles, time_angles, turned
from vgen.models.pvdm.planes import PLANES, PlaneGrid, join
from vgen.nn.embeddings import rotate
from vgen.video import ClipSpec

SMALL_UNET = {"model_channels": 16, "num_res_blocks": 1, "attention_resolutions": (2, 1), "channel_mult": (1, 2)}


def count(module):
    return sum(value.numel() for value in module.parameters())


def autoencoder(spec, **changes):
    torch.manual_seed(0)
    arguments = {"channels": 16, "depth": 1, "heads": 2, "dim_head": 8, "projector_depth": 2, "projector_hidden": 16}
    network = ViTAutoencoder(**(arguments | changes))
    network.prepare(spec)
    return network.eval()


def unet(**changes):
    """With numbers in the layers that begin as zeros."""
    torch.manual_seed(0)
    network = PlaneUNet(**({"norm_groups": 8, "num_heads": 2, **SMALL_UNET} | changes)).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return network


def planes(grid, channels=4, batch=2):
    return grid.split(torch.randn(batch, channels, grid.tokens, generator=torch.Generator().manual_seed(1)))


def test_full_size_counts():
    with torch.device("meta"):
        network = ViTAutoencoder()
        network.prepare(ClipSpec(16, 256, 256))
        assert count(network) == 62_064_399
        parts = (network.encoder, network.decoder, network.projectors["xy"], network.to_pixel)
        assert count(parts[0]) + count(network.to_tokens) == 26_865_024
        assert [count(part) for part in parts[1:]] == [26_790_912, 2_763_776 + 1_540 + 18 * 384, 73_731]
        assert count(PlaneUNet()) == 528_273_412
        assert count(PlaneUNet(conditional=False)) == 528_264_196
        assert count(PlaneUNet(model_channels=128)) == 132_163_588
        assert count(PlaneUNet(model_channels=128, conditional=False)) == 132_158_980
        assert [count(PatchDiscriminator(dims)) for dims in (2, 3)] == [2_766_529, 11_057_857]


def test_a_flat_latent_is_laid_out_as_released():
    grid = PlaneGrid(16, 32, 32)
    assert grid.tokens == 2048
    flat = torch.arange(2048.0).view(1, 1, -1)
    split = grid.split(flat)
    assert list(split) == list(PLANES) and split["yt"][0, 0, 1, 0] == 1024 + 32 and split["xt"][0, 0, 0, 0] == 1536
    assert torch.equal(join(split), flat)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 8, 8), (5, 16, 24), (3, 24, 8), (16, 16, 16)])
def test_any_length_and_aspect_ratio(size):
    spec = ClipSpec(*size)
    network = autoencoder(spec)
    video = torch.rand(2, 3, *size) * 2 - 1
    encoded = network.encode(video)
    assert {name: tuple(x.shape[2:]) for name, x in encoded.items()} == network.grid.shapes
    assert all(x.abs().max() < 1 for x in encoded.values())
    decoded = network.decode(encoded)
    assert decoded.shape == video.shape and decoded.abs().max() <= 1
    torch.testing.assert_close(decoded[1:], network(video[1:]), atol=1e-5, rtol=0)  # clips do not see each other
    with pytest.raises(UserError, match="encodes clips of"):
        network.encode(video[:, :, :, :, :-1])


def test_planes_say_where_they_look():
    """A change in one column of one frame reaches the planes by the axes that they keep."""
    spec = ClipSpec(4, 16, 24)
    network = autoencoder(spec, depth=0)  # without the encoder, nothing else mixes places
    video = torch.zeros(1, 3, 4, 16, 24)
    changed = video.clone()
    changed[:, :, 2, :8, 16:] = 1  # frame 2, first row of patches, last column
    with torch.no_grad():
        moved = {
            name: (x - network.encode(changed)[name]).abs().sum((0, 1)) > 0 for name, x in network.encode(video).items()
        }
    assert moved["xy"].nonzero().tolist() == [[0, 2]]
    assert moved["yt"].nonzero().tolist() == [[2, 2]]
    assert moved["xt"].nonzero().tolist() == [[2, 0]]


@pytest.mark.parametrize(
    "spec, changes, message",
    [
        (ClipSpec(4, 20, 16), {}, "height of 20 pixels"),
        (ClipSpec(4, 16, 30), {}, "width of 30 pixels"),
        (ClipSpec(4, 16, 16, channels=1), {}, "1 channels, the network 3"),
        (ClipSpec(4, 16, 16), {"channels": 12}, "no multiple of 8"),
        (ClipSpec(4, 16, 16), {"dim_head": 6}, "multiple of 4"),
    ],
)
def test_impossible_autoencoders_are_refused(spec, changes, message):
    with pytest.raises(UserError, match=message):
        autoencoder(spec, **changes)


def test_the_rotary_quirk():
    """Both features of a pair get one angle, unless released weights want it otherwise."""
    released, paired = time_angles(5, 8, "half_split_adjacent"), time_angles(5, 8, "paired")
    assert torch.equal(released[:, :4], released[:, 4:]) and torch.equal(paired[:, ::2], paired[:, 1::2])
    x = torch.randn(5, 1, 1, 8)
    for layout, kept in (("paired", True), ("half_split_adjacent", False)):
        tables = RotaryGrid(5, 2, 2, 8, layout).time
        same = torch.allclose(turned(x, *tables).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
        assert same is kept is torch.allclose(turned(x, *tables), rotate(x, *tables), atol=1e-5)
    space = space_angles(2, 3, 8)
    assert space.shape == (6, 8) and torch.equal(space[:, ::2], space[:, 1::2])


@torch.no_grad()
def test_the_readout_quirk():
    """`first` reads the first token's output, `appended` that of the learned one behind the sequence."""
    spec, video = ClipSpec(3, 8, 8), torch.rand(1, 3, 3, 8, 8)
    first, appended = (autoencoder(spec, projector_readout=readout) for readout in ("first", "appended"))
    for network, index in ((first, 0), (appended, -1)):
        projector, tokens = network.projectors["xy"], torch.randn(3, 2, 16)
        places = projector.positions[:, None]
        whole = torch.cat((tokens + places[:3], (projector.token + places[3:]).expand(-1, 2, -1)))
        for layer in projector.layers:
            whole = layer(whole)  # all tokens, also of the last layer
        torch.testing.assert_close(projector(tokens), torch.tanh(projector.to_plane(whole[index])))
    assert not torch.allclose(first.encode(video)["xy"], appended.encode(video)["xy"])


@torch.no_grad()
@pytest.mark.parametrize("grid", [PlaneGrid(4, 4, 4), PlaneGrid(2, 4, 4), PlaneGrid(2, 4, 6), PlaneGrid(8, 2, 8)])
def test_planes_in_one_batch_are_planes_alone(grid, monkeypatch):
    network, x, condition, time = unet(), planes(grid), planes(grid), torch.tensor([3, 900])
    together = network(x, time, condition)
    monkeypatch.setattr(unet_file, "_equal_shapes", lambda planes: [[name] for name in PLANES])
    alone = network(x, time, condition)
    for name in PLANES:
        assert together[name].shape == x[name].shape
        torch.testing.assert_close(together[name], alone[name], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("embedding", [False, True])
def test_only_an_embedding_tells_planes_of_one_shape_apart(embedding):
    network, x, time = unet(plane_embedding=embedding), planes(PlaneGrid(2, 4, 4)), torch.tensor([3, 900])
    assert count(network) - count(unet()) == (3 * 16 if embedding else 0)
    out = network(x, time)
    swapped = network({"xy": x["xy"], "yt": x["xt"], "xt": x["yt"]}, time)
    pairs = (("yt", "xt"), ("xt", "yt"), ("xy", "xy"))
    symmetric = all(torch.allclose(swapped[a], out[b], atol=1e-5) for a, b in pairs)
    assert symmetric is not embedding


@torch.no_grad()
def test_no_condition_is_a_condition_of_zeros():
    grid, time = PlaneGrid(2, 4, 4), torch.tensor([3, 900])
    network, x = unet(), planes(grid)
    zeros = {name: torch.zeros_like(value) for name, value in x.items()}
    torch.testing.assert_close(join(network(x, time)), join(network(x, time, zeros)))
    assert not torch.allclose(join(network(x, time)), join(network(x, time, x)))
    free = unet(conditional=False)
    assert join(free(x, time)).shape == join(x).shape


@torch.no_grad()
def test_planes_of_a_clip_see_each_other_and_no_other_clip():
    grid, time = PlaneGrid(2, 4, 4), torch.tensor([3, 900])
    network, x = unet(), planes(grid)
    before = network(x, time)
    x["xt"][0] += 1
    after = network(x, time)
    assert not torch.allclose(before["xy"][0], after["xy"][0], atol=1e-3)
    torch.testing.assert_close(join(before)[1], join(after)[1])


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"use_scale_shift_norm": False},
        {"resblock_updown": False},
        {"resblock_updown": False, "conv_resample": False},
        {"num_head_channels": 8},
        {"use_new_attention_order": True},
        {"attention_resolutions": (1,), "channel_mult": (1, 1, 2), "num_res_blocks": 2},
        {"in_channels": 2, "out_channels": 6},
    ],
)
def test_variants(changes):
    grid = PlaneGrid(4, 4, 8)
    network = unet(**changes)
    out = network(planes(grid, changes.get("in_channels", 4)), torch.tensor([3, 900]))
    assert join(out).shape == (2, changes.get("out_channels", 4), grid.tokens) and join(out).isfinite().all()


def test_impossible_unets_are_refused():
    with pytest.raises(UserError, match="side of 6 of plane yt cannot be halved 2 times"):
        unet(channel_mult=(1, 1, 1)).check_sides(PlaneGrid(6, 4, 4).shapes)
    with pytest.raises(UserError, match="16 channels cannot be divided by 32"):
        PlaneUNet(**SMALL_UNET)
    with pytest.raises(UserError, match="cannot be divided by 3"):
        unet(num_heads=3)


def test_checkpointing_changes_no_gradient():
    grid, time = PlaneGrid(2, 4, 4), torch.tensor([3, 900])
    found = []
    for on in (False, True):
        network = unet(checkpointing=on)
        join(network(planes(grid), time)).square().mean().backward()
        first = autoencoder(ClipSpec(2, 8, 8), checkpointing=on)
        first(torch.linspace(-1, 1, 384).view(1, 3, 2, 8, 8)).square().mean().backward()
        found.append([p.grad for p in (*network.parameters(), *first.parameters())])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("dims", [2, 3])
def test_discriminators(dims):
    network = PatchDiscriminator(dims, 4, 2, num_channels=1)
    logits, features = network(torch.randn(2, 1, *(16,) * dims))
    assert logits.shape[:2] == (2, 1) and [f.shape[1] for f in features] == [4, 8, 16]
    norms = [block.norm is not None for block in network.blocks]
    assert norms == [False, True, True, False]
    assert abs(float(network.blocks[1].conv.weight.detach().std()) - 0.02) < 0.005


@torch.no_grad()
def test_bf16():
    grid, time = PlaneGrid(2, 4, 4), torch.tensor([3, 900])
    network, x, first = unet(), planes(grid), autoencoder(ClipSpec(4, 16, 16))
    video = torch.rand(1, 3, 4, 16, 16) * 2 - 1
    exact, decoded = join(network(x, time)), first(video)
    with torch.autocast("cpu", torch.bfloat16):
        assert (join(network(x, time)).float() - exact).abs().max() < 0.05 * exact.abs().max()
        assert (first(video).float() - decoded).abs().max() < 0.05
    half = first.bfloat16()(video.bfloat16())  # tables stay in fp32
    assert half.dtype == torch.bfloat16 and (half.float() - decoded).abs().max() < 0.1
