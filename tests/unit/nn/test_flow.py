import pytest
import torch
import torch.nn.functional as F

from vgen.nn.flow import SpyNet, displace


def count(module):
    return sum(value.numel() for value in module.parameters())


def test_count():
    network = SpyNet()
    assert count(network) == 1_440_300 and {count(level) for level in network.levels} == {240_050}
    assert not [name for name in network.state_dict() if not name.startswith("levels.")]


def test_displacement_moves_by_pixels():
    image = torch.arange(30.0).view(1, 1, 5, 6)
    flow = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6)
    moved = displace(image, flow)
    torch.testing.assert_close(moved[..., :3, :5], image[..., 2:, 1:])
    torch.testing.assert_close(moved[..., 3:, 5], image[..., 4:, 5].expand(1, 1, 2))  # the border goes on


@torch.no_grad()
def still(variant):
    """All weights zero but the last bias: each level adds one pixel to the right."""
    network = SpyNet(variant)
    for value in network.parameters():
        value.zero_()
    for level in network.levels:
        level.convs[-1].bias[0] = 1
    return network


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "side", "levels"),
    [("mmediting", 64, 6), ("mmediting", 32, 6), ("sniklaus", 64, 2), ("sniklaus", 32, 1), ("sniklaus", 65, 2)],
)
def test_levels_by_variant(variant, side, levels):
    image = torch.rand(1, 3, side, side)
    flow = still(variant)(image, image)
    assert flow.shape == (1, 2, side, side)
    torch.testing.assert_close(flow[:, 0], torch.full((1, side, side), float(2**levels - 1)))
    assert not flow[:, 1].any()


@torch.no_grad()
def test_odd_sizes_are_resized_and_the_flow_with_them():
    image = torch.rand(1, 3, 40, 72)
    flow = still("mmediting")(image, image)
    torch.testing.assert_close(flow[:, 0], torch.full((1, 40, 72), 63 * 72 / 96))


@torch.no_grad()
def test_variants_read_channels_in_their_own_order():
    network, other = SpyNet("sniklaus"), SpyNet("mmediting")
    other.load_state_dict(network.state_dict())
    a, b = torch.rand(2, 1, 3, 32, 32).unbind(0)
    first = network.levels[0]
    standard = [(x.flip(1) - network.mean) / network.std for x in (a, b)]
    torch.testing.assert_close(network(a, b), first(*standard, torch.zeros(1, 2, 32, 32)))
    assert not torch.allclose(network(a, b), other(a, b), atol=1e-4)


@torch.no_grad()
def test_precision_is_kept_under_autocast_and_in_bf16():
    network = SpyNet()
    a, b = torch.rand(2, 1, 3, 32, 32).unbind(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(a, b), SpyNet.forward(network, a, b)) and network(a, b).dtype == torch.float32
    expected = network(a, b)
    low = network.to(torch.bfloat16)(a, b)
    assert low.dtype == torch.float32
    assert F.mse_loss(low, expected) < 1e-3
