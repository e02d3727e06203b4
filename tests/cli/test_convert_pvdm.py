"""Official PVDM files, written here in the layout of the release, become exports that vgen opens."""

import json
import os
import re

import pytest
import torch

import vgen
from tests.tiny_pvdm import autoencoder as small_autoencoder
from vgen.cli.main import main
from vgen.diffusion import DDIM
from vgen.models.pvdm import PVDM, PatchDiscriminator, PlaneAutoencoder, PlaneUNet, ViTAutoencoder, weights
from vgen.video import ClipSpec
from vgen.weights import WarmStart
from vgen.weights.checkpoint import warm_start

CLIP = ClipSpec(4, 16, 32)


def convert(*arguments):
    return main(["convert", "pvdm", *(str(a) for a in arguments)])


def renamed(state, pairs):
    found = {}
    for key, value in state.items():
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        found[key] = value
    return found


def official_autoencoder(network):
    """ViTAutoencoder's names: PreNorm around `fn`, tables with batch dimensions, 1x1 convolutions, constants."""
    state = renamed(
        network.state_dict(),
        [
            (r"^to_tokens\.", "encoder.to_patch_embedding."),
            (r"\.(time|attention)\.", ".0."),
            (r"\.space\.", ".1."),
            (r"^(encoder|decoder)(.*)\.feed_forward\.", r"\1\2.2."),
            (r"\.feed_forward\.", ".1."),
            (r"\.to_qkv\.", ".fn.to_qkv."),
            (r"\.to_out\.", ".fn.to_out.0."),
            (r"\.expand\.", ".fn.net.0."),
            (r"\.contract\.", ".fn.net.3."),
            (r"^projectors\.(..)\.layers\.", r"\1_quant_attn.layers."),
            (r"^projectors\.(..)\.token$", r"\1_token"),
            (r"^projectors\.(..)\.positions$", r"\1_pos_embedding"),
            (r"^projectors\.(..)\.to_plane\.", r"pre_\1."),
            (r"^lift\.", "post_"),
            (r"^to_pixel\.", "to_pixel.1."),
        ],
    )
    for key, value in state.items():
        if re.fullmatch(r"(pre|post)_..\.weight", key):
            state[key] = value[..., None, None]
        elif key.endswith("_token"):
            state[key] = value[None, None]
        elif key.endswith("_pos_embedding"):
            state[key] = value[None]
    for part in ("encoder", "decoder"):
        state[f"{part}.frame_rot_emb.inv_freqs"] = torch.zeros(network.dim_head // 2)
        state[f"{part}.image_rot_emb.scales"] = torch.zeros(network.dim_head // 4)
    return {**state, "coords": torch.zeros(network.grid.time, 1)}


def official_unet(network):
    """DiffusionWrapper's names; attention is made of 1D convolutions, and `zeros` are the missing condition."""
    state = renamed(
        network.state_dict(),
        [
            (r"^(input|output)_blocks\.(\d+)\.across\.", r"\1_attns.\2."),
            (r"^middle_block\.across\.", "mid_attn."),
            (r"\.layers\.", "."),
            (r"^out_norm\.", "out.0."),
            (r"^out_conv\.", "out.2."),
            (r"\.norm1\.", ".in_layers.0."),
            (r"\.conv1\.", ".in_layers.2."),
            (r"\.embed\.", ".emb_layers.1."),
            (r"\.norm2\.", ".out_layers.0."),
            (r"\.conv2\.", ".out_layers.3."),
            (r"\.skip\.", ".skip_connection."),
        ],
    )
    state = {k: v[..., None] if re.search(r"(qkv|proj_out)\.weight$", k) else v for k, v in state.items()}
    state |= {"zeros": torch.zeros(1, network.in_channels, 2048)} if network.conditional else {}
    return {f"diffusion_model.{key}": value for key, value in state.items()}


def official_loss(judges):
    """LPIPSWithDiscriminator's names."""
    state = {"perceptual_loss.scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    for dims, judge in judges.items():
        own = renamed(
            judge.state_dict(), [(r"^blocks\.(\d+)\.conv\.", r"model\1.0."), (r"^blocks\.(\d+)\.norm\.", r"model\1.1.")]
        )
        state |= {f"discriminator_{dims}d.{key}": value for key, value in own.items()}
    return state


def taught(network):
    """Fills zero-initialised weights, so that nothing is equal by chance."""
    torch.manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return network.eval()


def unet(**changes):
    sizes = {"model_channels": 32, "num_res_blocks": 1, "attention_resolutions": (1,), "channel_mult": (1, 1)}
    return taught(PlaneUNet(**(sizes | changes)))


@pytest.fixture
def files(tmp_path):
    # released heads have 64 channels
    network = ViTAutoencoder(16, 4, 1, heads=1, dim_head=64, projector_depth=1, projector_hidden=8)
    network.prepare(CLIP)
    torch.save(official_autoencoder(taught(network)), tmp_path / "model_last.pth")
    denoiser = unet()
    torch.save(official_unet(denoiser), tmp_path / "ema_model.pth", _use_new_zipfile_serialization=False)
    return tmp_path, network, denoiser


def test_the_autoencoder(files, capsys):
    folder, network, _ = files
    assert convert("--autoencoder", folder / "model_last.pth", "--preset", "ucf101", "--out", folder / "out") == 0
    said = capsys.readouterr().out
    assert "tensors found their place; clips of 4 frames of 16x32 pixels" in said
    model = vgen.load(folder / "out")
    assert isinstance(model, PlaneAutoencoder) and model.clip_spec.fps == 25
    video = torch.rand(1, 3, 4, 16, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model.network(video), network(video))
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["source"][0]["file"] == "model_last.pth" and str(folder) not in json.dumps(config)


def test_both_stages(files, capsys):
    folder, _, denoiser = files
    given = ["--autoencoder", folder / "model_last.pth", "--diffusion", folder / "ema_model.pth", "--preset", "sky"]
    assert convert(*given, "--out", folder / "out") == 0
    assert "8 are assumed" in capsys.readouterr().out
    model = vgen.load(folder / "out")
    assert isinstance(model, PVDM) and not model.codec.stored and model.clip_spec.frames == 8
    assert model.conditional_probability == 0.2 and model.diffusion.schedule.betas[0] == pytest.approx(0.0015)
    planes = model.autoencoder.grid.split(torch.randn(1, 4, model.autoencoder.grid.tokens))
    time = torch.tensor([500])
    with torch.no_grad():
        ours, theirs = model.denoiser(planes, time, planes), denoiser(planes, time, planes)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.sample(n=1, frames=6, options={"sampler": DDIM(2)}).shape == (1, 3, 6, 16, 32)
    (folder / "model_last.pth").unlink()  # nothing leads back to the files
    assert vgen.load((folder / "out").rename(folder / "moved")).sample(options={"steps": 2}).shape[2] == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"conditional": False},
        {"resblock_updown": False},
        {"use_scale_shift_norm": False, "channel_mult": (1, 2, 2), "attention_resolutions": (4, 1)},
        {"num_res_blocks": 2, "channel_mult": (1,)},
    ],
)
def test_sizes_are_read_from_weights(changes):
    network = unet(**changes)
    state = weights.unet_state(official_unet(network))
    assert weights.UNET_KEYS.convert(state, network.state_dict())[1].complete
    again = PlaneUNet(**weights.unet_config(state))
    told = again.configuration
    assert all(told[key] == (list(value) if isinstance(value, tuple) else value) for key, value in changes.items())
    weights.load(weights.UNET_KEYS, again, state)


def test_adversarial_training_can_go_on(files):
    folder, _, _ = files
    judges = {dims: taught(PatchDiscriminator(dims, 8, 2)) for dims in (2, 3)}
    torch.save(official_loss(judges), folder / "loss_last.pth")
    given = ["--autoencoder", folder / "model_last.pth", "--preset", "sky", "--out", folder / "out"]
    assert convert(*given, "--loss", folder / "loss_last.pth") == 0
    assert vgen.load(folder / "out").image_discriminator is None  # for use, they are not needed
    sizes = {"channels": 16, "latent_channels": 4, "depth": 1, "heads": 1, "dim_head": 64, "projector_depth": 1}
    network = ViTAutoencoder(**sizes, projector_hidden=8)
    fresh = small_autoencoder(
        CLIP, network=network, image_discriminator=PatchDiscriminator(2, 8, 2),
        video_discriminator=PatchDiscriminator(3, 8, 2),
    )  # fmt: skip
    warm_start(fresh, WarmStart(str(folder / "out")))
    assert torch.equal(fresh.video_discriminator.blocks[1].conv.weight, judges[3].blocks[1].conv.weight)


class _Hostile:
    def __init__(self, effect):
        self.effect = effect

    def __reduce__(self):
        return os.system, (f"touch {self.effect}",)


def test_mistakes(files, tmp_path, capsys):
    folder, network, _ = files

    def error(*arguments):
        assert convert(*arguments, "--preset", "sky", "--out", folder / "out") == 2
        assert not (folder / "out").exists()
        return capsys.readouterr().err

    first, second = folder / "model_last.pth", folder / "ema_model.pth"
    assert "not a PVDM autoencoder checkpoint" in error("--autoencoder", second)
    assert "no `diffusion_model.*`" in error("--autoencoder", first, "--diffusion", first)
    assert "leave out --diffusion" in error("--autoencoder", first, "--diffusion", second, "--loss", first)
    assert "not those of a PVDM loss file" in error("--autoencoder", first, "--loss", second)
    effect = tmp_path / "effect"
    torch.save({**official_autoencoder(network), "more": _Hostile(effect)}, tmp_path / "bad.pth")
    assert "refused" in error("--autoencoder", tmp_path / "bad.pth") and not effect.exists()
