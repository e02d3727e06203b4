"""Official files of both stages, written here in their layout, become exports."""

import argparse
import re

import pytest
import torch

import vgen
from tests.tiny_videogpt import SPEC, batch, videogpt, vqvae
from vgen.cli.main import main
from vgen.models.videogpt import VideoGPT, VideoVQVAE

_LAYERS = (("query", "w_qs"), ("key", "w_ks"), ("value", "w_vs"), ("out", "fc"))


def vqvae_names(model):
    """The VQ-VAE's state dict under the release's names."""
    state = {}
    for key, value in model.network.state_dict().items():
        if key == "codebook.started":
            continue
        new = re.sub(r"^down\.", "encoder.convs.", key)
        new = re.sub(r"^up\.", "decoder.convts.", new)
        new = new.replace("down_last.", "encoder.conv_last.").replace("to_latent.", "pre_vq_conv.")
        new = new.replace("from_latent.", "post_vq_conv.").replace("codebook.counts", "codebook.N")
        new = new.replace("codebook.sums", "codebook.z_avg").replace(".layers.", ".block.")
        new = re.sub(r"^(encoder|decoder)_blocks\.", r"\1.res_stack.", new)
        for axis in ("width", "height", "time"):
            new = new.replace(f".{axis}.", f".attn_{axis[0]}.")
        for ours, theirs in _LAYERS:
            new = new.replace(f".{ours}.", f".{theirs}.") if ".attn_" in new else new
        state[new] = value
    return state


def prior_names(model):
    """The prior's state dict under the release's names, with the masks that it stores for full attention."""
    state = {}
    for key, value in model.prior.state_dict().items():
        new = key
        for ours, theirs in _LAYERS:
            new = new.replace(f".projections.{ours}.", f".projections.{theirs}.")
        table = model.prior.class_conditional and re.search(r"norm\.(gain|bias)$", key) and "resnet" not in key
        gain, bias = ("w.weight", "wb.weight") if table else ("g", "b")
        if "resnet" not in key:
            new = re.sub(r"norm\.gain$", f"norm.{gain}", re.sub(r"norm\.bias$", f"norm.{bias}", new))
        new = new.replace(".condition_norm.", ".pre_enc_norm.").replace(".mlp_norm.", ".pre_fc_norm.")
        new = re.sub(r"^(blocks\.\d+)\.norm\.", r"\1.pre_attn_norm.", new)
        new = new.replace(".attention.projections.", ".attn.").replace(".condition.projections.", ".enc_attn.")
        new = new.replace(".expand.", ".fc_block.0.").replace(".contract.", ".fc_block.2.")
        new = re.sub(r"^blocks\.", "attn_stack.attn_nets.", new)
        new = re.sub(r"^start$", "attn_stack.right_shift.sos", new)
        new = re.sub(r"^positions\.axes\.", "attn_stack.pos_embd.emb.d_", new)
        new = re.sub(r"^condition_positions\.axes\.", "cond_pos_embd.emb.d_", new)
        new = re.sub(r"^embed\.", "fc_in.", re.sub(r"^logits\.", "fc_out.", new))
        new = new.replace("resnet.stem.", "resnet.stem.0.")
        new = new.replace("resnet.stem_norm.norm.", "resnet.stem.1.norm.norm.")
        if match := re.match(r"resnet\.groups\.(\d)\.(\d)\.", new):
            block = "start_block" if match[2] == "0" else f"blocks.{int(match[2]) - 1}"
            new = new.replace(match[0], f"resnet.group{int(match[1]) + 1}.{block}.")
        new = re.sub(r"\.norm([12])\.norm\.", r".bnr\1.norm.norm.", new)
        new = new.replace(".shortcut.0.", ".proj_conv.").replace(".shortcut.1.norm.", ".proj_bnr.norm.norm.")
        state[new] = value.T if table else value
    if model.prior.attention == "full":
        mask = torch.ones(model.prior.length, model.prior.length).tril()
        state |= {f"attn_stack.attn_nets.{i}.attn.attn.mask": mask for i in range(model.prior.depth)}
    return state


def convert(path, out, preset="ucf101"):
    return main(["convert", "videogpt", "--preset", preset, "--model", str(path), "--out", str(out)])


def save(path, state, **arguments):
    given = argparse.Namespace(sequence_length=4, resolution=8, **arguments)
    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": {"args": given}}, path)
    return path


def test_vqvae(tmp_path, capsys):
    model = vqvae().eval()
    path = save(tmp_path / "vqvae.ckpt", vqvae_names(model), downsample=(2, 2, 2), n_hiddens=8)
    assert convert(path, tmp_path / "out", "bair") == 0
    assert "tensors found their place" in capsys.readouterr().out
    found, video = vgen.load(tmp_path / "out"), batch()["video"]
    assert isinstance(found, VideoVQVAE) and found.clip_spec.fps == 10
    assert torch.equal(found.reconstruct({"video": video}), model.reconstruct({"video": video}))
    assert bool(found.network.codebook.started), "further training goes on with these codes"


@pytest.mark.parametrize(
    "kind", [{"class_conditional": True}, {"condition_frames": 1, "attention": "sparse"}, {}], ids=str
)
def test_prior(tmp_path, kind):
    # the released block length
    model = videogpt(**kind).eval()
    if model.prior.layout is not None:
        model = _with_released_blocks(model)
    state = prior_names(model) | {f"vqvae.{k}": v for k, v in vqvae_names(model.vqvae).items()}
    path = save(tmp_path / "gpt.ckpt", state, heads=2, attn_type=model.prior.attention, n_cond_frames=1)
    assert convert(path, tmp_path / "out") == 0
    found = vgen.load(tmp_path / "out")
    assert isinstance(found, VideoGPT)
    given = model.conditions(batch(2))
    assert torch.equal(found.sample(given, 2, seeds=[3, 4]), model.sample(given, 2, seeds=[3, 4]))
    assert found.clip_spec.class_names == (("0", "1", "2") if kind.get("class_conditional") else ())


def _with_released_blocks(model):
    from vgen.models.videogpt import CodeTransformer

    prior = CodeTransformer(24, 2, 2, attention="sparse", condition_frames=1, condition_widths=(4, 4, 8, 12))
    made = VideoGPT(SPEC, prior, model.vqvae)
    prior.load_state_dict(model.prior.state_dict())
    return made.eval()


def test_refused(tmp_path, capsys):
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "other.ckpt")
    assert convert(tmp_path / "other.ckpt", tmp_path / "no") == 2
    assert "not a VideoGPT checkpoint" in capsys.readouterr().err
    save(tmp_path / "empty.ckpt", {"x": torch.zeros(1)}, downsample=(2, 2, 2))
    assert convert(tmp_path / "empty.ckpt", tmp_path / "no") == 2
    state = vqvae_names(vqvae())
    del state["encoder.convs.0.conv.weight"]
    assert convert(save(tmp_path / "cut.ckpt", state, downsample=(2, 2, 2)), tmp_path / "no") == 2
    assert "is missing" in capsys.readouterr().err
