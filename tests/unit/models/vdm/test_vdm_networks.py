import pytest
import torch

from vgen.diffusion import guided
from vgen.errors import UserError
from vgen.models.vdm import FAMILY, Unet3D
from vgen.models.vdm.weights import load_unet, norm_of, unet_config, unet_state
from vgen.nn.attention import attend, attend_relative, separate_images
from vgen.nn.norm import ChannelRMSNorm

PAPER = {
    "spatial_attention": "full",
    "attention_levels": (1,),
    "positions": "shaw",
    "modulation": "add",
    "norm": "group",
    "attn_dim_head": 16,
}


def count(module):
    return sum(value.numel() for value in module.parameters())


def small(**changes):
    arguments = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 8, "resnet_groups": 4}
    torch.manual_seed(0)
    return Unet3D(**(arguments | changes)).eval()


def inputs(batch=2, frames=5, channels=3, side=8):
    torch.manual_seed(1)
    return torch.randn(batch, channels, frames, side, side), torch.randint(0, 1000, (batch,))


@pytest.mark.parametrize(
    ("arguments", "rms", "group"),
    [
        ({"dim": 64}, 35_706_243, 35_714_307),
        ({"dim": 64, "channels": 4}, 35_709_444, 35_717_508),
        ({"dim": 64, "use_bert_text_cond": True}, 41_801_859, 41_809_923),
        ({"dim": 128}, 134_482_435, 134_498_563),
        ({"dim": 256}, 521_245_443, 521_277_699),
        ({"dim": 128, "dim_mults": (1, 2, 4, 4), "channels": 4}, 72_606_980, 72_619_012),
    ],
    ids=str,
)
def test_full_size_counts(arguments, rms, group):
    with torch.device("meta"):
        assert count(Unet3D(**arguments)) == rms
        assert count(Unet3D(**arguments, norm="group")) == group
    assert FAMILY.parameters["Unet3D dim 64 (video-diffusion-pytorch 0.7.0)"] == 35_706_243


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "group"}, {"use_sparse_linear_attn": False}, {"out_dim": 5}, {"cond_dim": 6}, PAPER],
    ids=str,
)
def test_options(changes):
    unet, (x, t) = small(**changes), inputs()
    cond = torch.randn(2, 6) if "cond_dim" in changes else None
    out = unet(x, t, cond)
    assert out.shape == (2, changes.get("out_dim", 3), 5, 8, 8) and out.isfinite().all()
    assert Unet3D(**unet.configuration).configuration == unet.configuration
    if "attention_levels" in changes:
        assert isinstance(unet.downs[0][3], torch.nn.Identity) and unet.init_temporal_attn is None


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, PAPER], ids=["public", "paper"])
def test_pictures_and_video_do_not_see_each_other(changes):
    """Under RMS norm, that is: GroupNorm takes its statistics over all frames."""
    unet, (x, t) = small(**(changes | {"norm": "rms"})), inputs(frames=6)
    together = unet(x, t, images=2)
    torch.testing.assert_close(together[:, :, :4], unet(x[:, :, :4], t), atol=1e-5, rtol=1e-4)
    for frame in (4, 5):
        torch.testing.assert_close(
            together[:, :, frame], unet(x[:, :, frame : frame + 1], t)[:, :, 0], atol=1e-5, rtol=1e-4
        )
    assert not torch.allclose(unet(x, t)[:, :, :4], together[:, :, :4], atol=1e-3)


def test_the_bias_of_pictures_lets_gradients_through():
    unet, (x, t) = small().train(), inputs()
    unet(x, t, images=2).square().mean().backward()
    gradient = unet.time_rel_pos_bias.relative_attention_bias.weight.grad
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert separate_images(3, 1)[0].isinf().sum() == 4


@torch.no_grad()
def test_conditions_of_clips_and_of_frames():
    unet, (x, t) = small(cond_dim=6), inputs()
    cond, mask = torch.randn(2, 6), torch.tensor([True, False])
    whole = unet(x, t, cond, null_mask=mask)
    each = unet(x, t, cond[:, None].expand(-1, 5, -1), null_mask=mask[:, None].expand(-1, 5))
    torch.testing.assert_close(each, whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(unet(x, t, cond[:, None].expand(-1, 5, -1), null_mask=mask), each)
    null = unet(x, t, cond, null_mask=torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(whole[:1], null[:1], atol=1e-5, rtol=1e-4)
    two = null + 3 * (unet(x, t, cond) - null)
    torch.testing.assert_close(guided(unet, x, t, cond, 3.0), two, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="expects a condition"):
        unet(x, t)


@torch.no_grad()
def test_guidance_costs_one_pass_where_it_is_none(monkeypatch):
    unet, (x, t) = small(cond_dim=6), inputs()
    monkeypatch.setattr(unet, "forward_pair", None)
    cond = torch.randn(2, 6)
    assert torch.equal(guided(unet, x, t, cond, 1.0), unet(x, t, cond))
    assert torch.equal(guided(unet, x, t, cond, 0.0), unet(x, t, cond, null_mask=torch.ones(2, dtype=torch.bool)))
    assert torch.equal(guided(small(), x, t, None, 5.0), small()(x, t))


def test_checkpointing_repeats_dropout():
    x, t = inputs()
    gradients = []
    for checkpointing in (False, True):
        unet = small(dropout=0.5, checkpointing=checkpointing).train()
        torch.manual_seed(3)
        unet(x, t).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in unet.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.manual_seed(4)
    assert not torch.equal(unet(x, t), unet(x, t))
    assert torch.equal(unet.eval()(x, t), unet(x, t))


def test_relative_positions_by_the_definition():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 2, 5, 3).unbind(0)
    keys, values = torch.randn(2, 5, 5, 3).unbind(0)
    zero = torch.zeros_like(keys)
    torch.testing.assert_close(attend_relative(q, k, v, zero, zero), attend(q, k, v, scale=1.0))
    found, swapped = attend_relative(q, k, v, keys, values), attend_relative(q, k, v, keys, values, swapped=True)
    logits = torch.einsum("nhid,nhjd->nhij", q, k)
    for out, term in (
        (found, torch.einsum("nhid,ijd->nhij", q, keys)),
        (swapped, torch.einsum("nhjd,jid->nhij", q, keys)),
    ):
        weight = (logits + term).softmax(-1)
        torch.testing.assert_close(out, weight @ v + torch.einsum("nhij,ijd->nhid", weight, values))


def test_rms_norm():
    norm, x = ChannelRMSNorm(6), torch.randn(2, 6, 3, 4, 4)
    torch.testing.assert_close(norm(x).square().mean(1), torch.ones(2, 3, 4, 4))
    assert norm(torch.zeros_like(x)).abs().max() == 0
    half = norm.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="init_dim"):
        Unet3D(8, init_dim=4)
    with pytest.raises(ValueError, match="odd"):
        Unet3D(8, init_kernel_size=4)
    with pytest.raises(UserError, match="no `denoise_fn"):
        unet_state({"model": {"x": torch.zeros(1)}})


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"norm": "group", "cond_dim": 6}, {"use_sparse_linear_attn": False}], ids=str)
def test_a_trainers_file_is_recognised(changes):
    from tests.released import vdm_state

    trained, (x, t) = small(**(changes | {"resnet_groups": 8})), inputs()
    state = unet_state({"step": 5, "model": vdm_state(trained), "ema": vdm_state(trained)})
    assert norm_of(state) == changes.get("norm", "rms")
    loaded = Unet3D(**unet_config(state)).eval()
    load_unet(loaded, state, "model-5.pt")
    cond = torch.randn(2, 6) if trained.has_cond else None
    assert torch.equal(loaded(x, t, cond), trained(x, t, cond))
    state.pop("init_conv.bias")
    with pytest.raises(UserError, match=r"init_conv\.bias"):
        load_unet(loaded, state)
