import pytest
import torch
import torch.nn.functional as F

from tests.official_names import edm_state, score_sde_state
from vgen.models.score import weights
from vgen.models.score.networks import ADM, Preconditioned, ScoreNetwork, ScoreUNet
from vgen.models.score.networks.blocks import AttentionBlock, ConvResample, ResBlock

DDPMPP = {"noise_embedding": "positional", "taps": None, "encoder": "standard"}
DDPM = DDPMPP | {"block": "ddpm", "per_group": 1, "skip_rescale": False}
SMALL = {"resolution": 8, "model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}


def count(module):
    return sum(value.numel() for value in module.parameters())


@torch.no_grad()
def filled(network):
    """Random weights everywhere, so that nothing that should show is close to zero."""
    for value in network.parameters():
        value.normal_(std=0.3 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.2)
    return network.eval()


def test_full_size_counts():
    with torch.device("meta"):
        ncsnpp, ddpmpp = ScoreUNet(32), ScoreUNet(32, **DDPMPP)
        deep = [ScoreUNet(32, num_blocks=8), ScoreUNet(32, num_blocks=8, **DDPMPP)]
        ddpm = ScoreUNet(32, num_blocks=2, **DDPM)
        large = ScoreUNet(256, channel_mult=(1, 1, 2, 2, 2, 2, 2), num_blocks=2, decoder="skip", encoder="skip")
        edm = {"channel_mult": (2, 2, 2), "num_blocks": 4, "taps": (1, 1), "encoder": "standard"}
        edm_ddpmpp = [
            ScoreUNet(32, noise_embedding="positional", **edm, **more)
            for more in ({"augment_dim": 9}, {}, {"augment_dim": 9, "label_dim": 10})
        ]
        wide = {"channel_mult": (2, 2, 2)}
        edm_ncsnpp = [
            ScoreUNet(32, **wide, **more) for more in ({"augment_dim": 9}, {}, {"augment_dim": 9, "label_dim": 10})
        ]
        adm = ADM(64, label_dim=1000)
        vp = ScoreUNet(32, noise_embedding="positional")
    # score SDE counts the Fourier frequencies, which do not learn
    assert count(ncsnpp) + ncsnpp.map_noise.frequencies.numel() == 62_758_915
    assert [count(deep[0]) + 128, count(deep[1])] == [107_587_075, 106_632_579]
    assert (count(ddpmpp), count(ddpm), count(large) + 128) == (61_804_419, 35_218_947, 65_574_549)
    assert count(vp) == 62_693_251
    assert [count(each) for each in edm_ddpmpp] == [55_733_891, 55_732_739, 55_735_299]
    assert [count(each) for each in edm_ncsnpp] == [56_397_827, 56_395_523, 56_400_643]
    assert count(adm) == 295_899_267


VARIANTS = [
    {},
    {"encoder": "skip", "decoder": "skip"},
    {"encoder": "skip", "decoder": "skip", "combine": "cat"},
    {"encoder": "residual", "decoder": "residual"},
    {"decoder": "residual", "taps": None, "encoder": "residual"},
    DDPMPP,
    DDPM,
    DDPM | {"taps": (1, 3, 3, 1), "resample_with_conv": False},
    DDPM | {"taps": (1, 3, 3, 1)},
    {"noise_embedding": "none"},
    {"activation": "lrelu", "skip_rescale": False},
]


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_score_sde_weights_round_trip(variant):
    """Official files of every variant, written by their own rules, load and give the same outputs."""
    first, second = (ScoreNetwork(ScoreUNet(**(SMALL | variant))) for _ in range(2))
    filled(first)
    report = weights.load_score_sde(second, score_sde_state(first.unet))
    assert report.complete and report.dropped == ["sigmas"]
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.9])
    assert first(x, t).abs().max() > 0.05
    torch.testing.assert_close(second.eval()(x, t), first(x, t))


@torch.no_grad()
@pytest.mark.parametrize(
    "network",
    [
        lambda: ScoreUNet(**SMALL, augment_dim=3, label_dim=2),
        lambda: ScoreUNet(**SMALL, encoder="skip", decoder="skip", noise_embedding="positional", taps=(1, 1)),
        lambda: ADM(8, 3, 6, 8, (1, 2), 1, (4,), head_channels=4, label_dim=2, augment_dim=3),
    ],
    ids=["song", "song skip", "adm"],
)
def test_edm_weights_round_trip(network):
    first, second = filled(Preconditioned(network())), Preconditioned(network())
    assert weights.load_edm(second, edm_state(first.network)).complete
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 9.0])
    label = torch.eye(2) if first.network.map_label is not None else None
    torch.testing.assert_close(second.eval()(x, sigma, label), first(x, sigma, label))


def test_attention_of_matrices_is_ours():
    """Score SDE's matrices of query, key and value (in, out) as in its AttnBlock."""
    block = filled(AttentionBlock(8)).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    matrices = {f"a.NIN_{i}.W": torch.randn(8, 8, dtype=torch.float64) for i in range(4)}
    biases = {f"a.NIN_{i}.b": torch.randn(8, dtype=torch.float64) for i in range(4)}
    state = weights.fused(matrices | biases)
    block.load_state_dict(
        {
            "norm.weight": block.norm.weight,
            "norm.bias": block.norm.bias,
            "qkv.weight": state["a.qkv.weight"],
            "qkv.bias": state["a.qkv.bias"],
            "proj.weight": state["a.NIN_3.weight"],
            "proj.bias": state["a.NIN_3.bias"],
        }
    )

    def nin(i, h):
        mixed = torch.einsum("bchw,cd->bdhw", h, matrices[f"a.NIN_{i}.W"])
        return mixed + biases[f"a.NIN_{i}.b"].view(-1, 1, 1)

    q, k, v = (nin(i, block.norm(x)) for i in range(3))
    logits = torch.einsum("bchw,bcij->bhwij", q, k) * 8**-0.5
    attention = logits.flatten(3).softmax(-1).view_as(logits)
    seen = torch.einsum("bhwij,bcij->bchw", attention, v)
    torch.testing.assert_close(block(x), x + nin(3, seen))


def test_residual_block_is_the_textbook_one():
    block = filled(ResBlock(8, 12, 6, skip_scale=0.5**0.5)).double()
    x, e = torch.randn(2, 8, 4, 4, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    h = block.conv0(F.silu(F.group_norm(x, 2, block.norm0.weight, block.norm0.bias, 1e-6)))
    h = h + (e @ block.affine.weight.T + block.affine.bias)[:, :, None, None]
    h = block.conv1(F.silu(F.group_norm(h, 3, block.norm1.weight, block.norm1.bias, 1e-6)))
    torch.testing.assert_close(block(x, e), (block.skip(x) + h) / 2**0.5)


def test_strided_convolutions_of_ddpm():
    layer = ConvResample(3, 5, "down", None)
    x = torch.randn(1, 3, 4, 4)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.conv.weight, layer.conv.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)
    up = ConvResample(3, 5, "up", None)
    wide = F.interpolate(x, scale_factor=2)
    torch.testing.assert_close(up(x), F.conv2d(wide, up.conv.weight, up.conv.bias, padding=1))


@torch.no_grad()
def test_conventions_of_score_sde():
    unet = filled(ScoreUNet(**SMALL))
    x, sigma = torch.rand(2, 3, 8, 8), torch.tensor([0.5, 20.0])
    network = ScoreNetwork(unet, centered=False, scale_by_sigma=True)
    torch.testing.assert_close(network(x, sigma), unet(2 * x - 1, sigma.log()) / sigma.view(-1, 1, 1, 1))
    discrete = ScoreNetwork(filled(ScoreUNet(**(SMALL | DDPMPP))), scale_by_sigma=True)
    label = torch.tensor([0, 999])
    assert [round(float(s), 4) for s in discrete.sigmas[label]] == [50, 0.01]
    raw = discrete.unet(x, label)
    torch.testing.assert_close(discrete(x, label), raw / torch.tensor([50, 0.01]).view(-1, 1, 1, 1))


def test_training_drops_labels_and_learns():
    for network in (ScoreUNet(**SMALL, label_dim=2, label_dropout=1.0), ADM(8, 3, None, 8, (1, 2), 1, (4,), 4, 0.0, 2)):
        filled(network)
        x, t, label = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 2.0]), torch.eye(2)
        with torch.no_grad():
            assert not torch.equal(network(x, t, label), network(x, t, label.flip(0)))
            network.train()
            same = torch.equal(network.embedding(t, label, None), network.embedding(t, label.flip(0), None))
        assert same == isinstance(network, ScoreUNet)
        network(x, t, label).square().mean().backward()
        missing = [name for name, value in network.named_parameters() if value.grad is None]
        assert not missing
