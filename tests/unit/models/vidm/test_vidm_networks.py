import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.official_names import vidm_state
from vgen.models.vidm import weights
from vgen.models.vidm.networks import ContentGenerator, Encoder2d, Layout, MotionGenerator, UNet2d
from vgen.models.vidm.networks.blocks import AdaGN, PosGN, SpatialAttention
from vgen.models.vidm.networks.unet import Positions
from vgen.nn.flow import SpyNet

SMALL = Layout(32, 1, (2,), (1, 2), num_head_channels=16)


def count(module):
    return sum(value.numel() for value in module.parameters())


@torch.no_grad()
def taught(network):
    """Fills what begins at zero, so that every block shows in the output."""
    for value in network.parameters():
        if value.abs().max() == 0:
            value.normal_(std=0.05)
    return network.eval()


def inputs(batch=2, channels=3, side=8):
    images = torch.randn(3, batch, channels, side, side)
    return (*images, torch.randint(0, 1000, (batch,)), torch.randint(0, 128, (batch,)))


def test_full_size_counts():
    with torch.device("meta"):
        motion = MotionGenerator(flow=SpyNet())
        plain = UNet2d(3, 6, Layout(position="adagn"))
        light = [UNet2d(channels, 6, Layout(num_res_blocks=1, position="adagn")) for channels in (3, 6)]
        content, single = ContentGenerator(), UNet2d(3, 6, Layout())
    assert (count(motion.encoder), count(motion.unet), count(motion.flow)) == (44_122_880, 148_615_046, 1_440_300)
    assert count(motion) == 194_178_226
    assert (count(content.unet), count(single)) == (148_616_198, 148_612_742)
    assert content.constant.shape == (1, 3, 128, 128)
    # with ADM's norm it is ADM's U-Net, in P2's three layouts
    assert [count(plain), *map(count, light)] == [131_713_286, 93_563_910, 93_567_366]
    assert len(motion.state_dict()) == 988 - 2  # SpyNet's mean and standard deviation are constants here


def test_layouts_are_read_from_weights():
    layouts = [
        Layout(),
        SMALL,
        Layout(32, 2, (1, 4), (1, 2, 3), num_head_channels=64, resblock_updown=False),
        Layout(32, 2, (), (1,), num_head_channels=64),
    ]
    for layout in layouts:
        with torch.device("meta"):
            network = MotionGenerator(layout, flow=SpyNet())
        official = vidm_state(network)
        found = weights.motion_layout(official, layout.num_head_channels)
        assert found == layout
        _, report = weights.VIDM_KEYS.convert(official, network.state_dict())
        assert report.complete and not report.dropped


def test_nothing_is_predicted_before_training():
    x, first, previous, t, n = inputs(side=16)
    network = MotionGenerator(SMALL, flow=SpyNet())
    assert not network(x, t, n, first, network.motion(first, previous)).any()
    assert not ContentGenerator(SMALL, size=(16, 16))(x, t).any()


def test_posgn_is_the_textbook_one():
    norm = PosGN(32).double()
    x, t, n = torch.randn(2, 32, 3, 5).double(), torch.tensor([0, 700]), torch.tensor([127, 3])
    place = Positions(Layout())(t, n)
    axes = [torch.linspace(-1, 1, size, dtype=torch.float64) for size in (1000, 128, 3, 5)]
    coordinates = torch.stack(
        [
            torch.stack(torch.meshgrid(axes[0][i], axes[1][j], axes[2], axes[3], indexing="ij"), -1)[0, 0]
            for i, j in zip(t, n, strict=True)
        ]
    )
    hidden = norm.modulation(F.silu(norm.hidden(torch.sin(norm.phase(coordinates)))))
    scale, shift = hidden.permute(0, 3, 1, 2).chunk(2, 1)
    # coordinates of steps and pixels are fp32
    torch.testing.assert_close(norm(x, place), norm.norm(x) * (1 + scale) + shift, atol=1e-6, rtol=1e-6)


def test_attention_is_the_textbook_one():
    block = SpatialAttention(32, 4).double()
    nn.init.normal_(block.proj.weight)
    x = torch.randn(2, 32, 3, 4, dtype=torch.float64)
    qkv = block.qkv(block.norm(x).flatten(2)).reshape(8, 24, 12)  # heads first, then q, k and v
    q, k, v = (each * s for each, s in zip(qkv.split(8, 1), (8**-0.25, 8**-0.25, 1), strict=True))
    seen = torch.einsum("bts,bcs->bct", torch.einsum("bct,bcs->bts", q, k).softmax(-1), v).reshape(2, 32, 12)
    torch.testing.assert_close(block(x), x + block.proj(seen).view_as(x))


@torch.no_grad()
@pytest.mark.parametrize("layout", [SMALL, Layout(32, 1, (), (1, 2), resblock_updown=False, position="adagn")])
def test_one_position_for_the_batch_is_the_same_position_each(layout):
    x, first, previous, _, _ = inputs()
    network = taught(MotionGenerator(layout, flow=SpyNet()))
    motion = network.motion(first, previous)
    t, n = torch.tensor([37]), torch.tensor([5])
    each = network(x, t.expand(2), n.expand(2), first, motion)
    torch.testing.assert_close(network(x, t, n, first, motion), each, atol=1e-5, rtol=1e-5)
    other = network(x, t, n + 1, first, motion)
    assert torch.equal(other, network(x, t, n, first, motion)) == (layout.position == "adagn")  # it sees no frame


@torch.no_grad()
def test_feature_residual():
    """Behind every input block: features of the first frame plus a fifth of the denoiser's own."""
    x, first, previous, t, n = inputs()
    network = taught(MotionGenerator(SMALL, flow=SpyNet()))
    motion = network.motion(first, previous)
    unet, position = network.unet, network.unet.positions(t, n)
    h, skips = torch.cat((x, motion), 1), []
    r = first
    for theirs, ours in zip(network.encoder.input_blocks, unet.input_blocks, strict=True):
        r = theirs(r, position)
        h = r + 0.2 * ours(h, position)
        skips.append(h)
    h = unet.middle_block(h, position)
    for block in unet.output_blocks:
        h = block(torch.cat((h, skips.pop()), 1), position)
    expected = unet.out_conv(F.silu(unet.out_norm(h)))
    torch.testing.assert_close(network(x, t, n, first, motion), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_options_of_the_generators():
    x, first, previous, t, n = inputs(side=16)
    blind = taught(MotionGenerator(SMALL, learned_variance=False))
    assert blind.motion(first, previous) is None and blind(x, t, n, first, None).shape == x.shape
    flow = SpyNet()
    released, paper = (MotionGenerator(SMALL, flow=flow, rescale_flow_input=choice) for choice in (False, True))
    assert torch.equal(paper.motion(first, previous), released.motion((first + 1) / 2, (previous + 1) / 2))
    content = taught(ContentGenerator(SMALL, size=(16, 16)))
    before = content(x, t)
    assert before.shape == (2, 6, 16, 16)
    content.constant.zero_()
    assert not torch.equal(content(x, t), before)
    plain = ContentGenerator(SMALL, size=(16, 16), truncation=False)
    assert plain.unet.in_channels == 3 and plain.constant is None


def test_everything_learns():
    x, first, previous, t, n = inputs(side=16)
    network = taught(MotionGenerator(SMALL, flow=SpyNet())).train()
    with torch.autocast("cpu", torch.bfloat16):
        motion = network.motion(first, previous)
        assert motion.dtype == torch.float32
        loss = network(x, t, n, first, motion).float().square().mean()
    loss.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())


def test_the_encoder_alone_returns_every_map():
    maps = Encoder2d(3, SMALL)(torch.randn(1, 3, 8, 8), torch.tensor([3]), torch.tensor([0]))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 8, 8), (32, 8, 8), (32, 4, 4), (64, 4, 4)]


def test_adaptive_norm_reads_the_step():
    norm, x = AdaGN(32, 8), torch.randn(2, 32, 4, 4)
    positions = Positions(Layout(32, position="adagn"))(torch.tensor([3, 900]), torch.tensor([0]))
    assert positions.embedding.shape == (2, 128) and positions.place.shape == (2, 2)
    with pytest.raises(RuntimeError):
        norm(x, positions)  # made for another embedding
