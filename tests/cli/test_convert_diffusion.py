"""Files of video-diffusion-pytorch and of LVDM, written here in their layouts, become exports that vgen opens."""

import json
import os

import pytest
import torch

import vgen
from tests.released import lvdm_autoencoder_state, lvdm_file, vdm_state
from tests.tiny_vdm import clip_autoencoder, lvdm_unet, shaken, unet
from vgen.cli.main import main
from vgen.models.vdm import VDM
from vgen.models.video_ldm import VideoAutoencoder, VideoLDM


def convert(release, *arguments):
    return main(["convert", release, *(str(a) for a in arguments)])


class _Hostile:
    def __init__(self, effect):
        self.effect = effect

    def __reduce__(self):
        return os.system, (f"touch {self.effect}",)


@pytest.mark.parametrize("changes", [{}, {"norm": "group", "cond_dim": 12}], ids=["0.7.0", "0.6.3, text"])
def test_vdm(tmp_path, capsys, changes):
    raw, average = shaken(unet(**changes)), unet(**changes)
    content = {"step": 70, "model": vdm_state(raw, 50), "ema": vdm_state(average, 50), "scaler": {}}
    torch.save(content, tmp_path / "model-7.pt")
    options = ["--preset", "folder", "--size", 8, "--frames", 5, "--text_model", tmp_path / "no_bert"]
    assert convert("vdm", "--model", tmp_path / "model-7.pt", *options, "--out", tmp_path / "out") == 0
    assert "tensors found their place" in capsys.readouterr().out
    x, t = torch.randn(1, 3, 5, 8, 8), torch.tensor([30])
    cond = torch.randn(1, 12) if "cond_dim" in changes else None
    for weights, network in (("raw", raw), ("ema", average)):
        model = vgen.load(tmp_path / "out", weights=weights)
        assert isinstance(model, VDM) and model.diffusion.steps == 50 and model.diffusion.loss_type == "l1"
        assert torch.equal(model.denoiser(x, t, cond), network.eval()(x, t, cond))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["source"][0]["file"] == "model-7.pt" and config["source"][0]["step"] == 70
    assert str(tmp_path / "model-7.pt") not in json.dumps(config)
    if not changes:
        assert main(["sample", str(tmp_path / "out"), "--frames", "7", "--option", "sampler=Ancestral", *_TWO]) == 0
        assert (tmp_path / "out" / "generated" / "0000_clip_0.mp4").is_file()


_TWO = ["--option", "steps=2"]


def test_lvdm(tmp_path, capsys):
    denoiser, codec = lvdm_unet(), clip_autoencoder().network
    content = lvdm_file(denoiser, codec, scale=0.5)
    torch.save(content, tmp_path / "sky.ckpt")
    options = ["--preset", "sky", "--size", 16, "--frames", 6, "--out", tmp_path / "out"]
    assert convert("lvdm", "--dm", tmp_path / "sky.ckpt", *options) == 0
    assert "with averaged weights" in capsys.readouterr().out
    model, average = (vgen.load(tmp_path / "out", weights=w) for w in ("raw", "ema"))
    assert isinstance(model, VideoLDM) and isinstance(model.autoencoder, VideoAutoencoder)
    assert float(model.scaling.scale[0]) == 0.5 and float(model.scaling.shift[0]) == pytest.approx(1.4606637)
    assert not model.codec.stored and (tmp_path / "out" / "codec" / "model.safetensors").is_file()
    x, t = torch.randn(1, 2, 3, 8, 8), torch.tensor([30])
    assert torch.equal(model.denoiser(x, t), denoiser.eval()(x, t))
    weight = denoiser.get_parameter("input_blocks.0.0.weight")
    assert torch.equal(average.denoiser.get_parameter("input_blocks.0.0.weight"), weight * 0.5)
    video = torch.rand(1, 3, 6, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model.autoencoder.encode(video)["z"], codec.encode(video)[:, :2])
    (tmp_path / "sky.ckpt").unlink()
    made = vgen.load((tmp_path / "out").rename(tmp_path / "moved")).sample(n=1, frames=9, options={"steps": 2})
    assert made.shape == (1, 3, 9, 16, 16) and made.isfinite().all()


def test_the_autoencoder_of_lvdm_alone(tmp_path):
    network = clip_autoencoder().network
    torch.save({"state_dict": lvdm_autoencoder_state(network), "epoch": 9}, tmp_path / "ae.ckpt")
    options = ["--preset", "taichi", "--size", 16, "--frames", 6, "--out", tmp_path / "out"]
    assert convert("lvdm", "--ae", tmp_path / "ae.ckpt", *options) == 0
    model = vgen.load(tmp_path / "out")
    assert isinstance(model, VideoAutoencoder) and model.clip_spec.frames == 6
    video = torch.rand(1, 3, 6, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model.encode(video)["z"], network.encode(video)[:, :2])


def test_mistakes(tmp_path, capsys):
    out = ["--size", 16, "--frames", 6, "--out", tmp_path / "out"]

    def error(release, *arguments):
        assert convert(release, *arguments, *out) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    vdm, lvdm = tmp_path / "vdm.pt", tmp_path / "lvdm.ckpt"
    content = {"step": 1, "model": vdm_state(unet()), "ema": vdm_state(unet())}
    torch.save(content, vdm)
    torch.save(lvdm_file(lvdm_unet(), clip_autoencoder().network), lvdm)
    assert "name a file" in error("lvdm", "--preset", "sky")
    assert "not an LVDM diffusion checkpoint" in error("lvdm", "--preset", "sky", "--dm", vdm)
    assert "no `denoise_fn.*`" in error("vdm", "--preset", "sky", "--model", lvdm)
    assert "did you mean 'ucf101'?" in error("vdm", "--preset", "ucf01", "--model", vdm)
    content["model"]["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    torch.save(content, vdm)
    assert "another noise schedule" in error("vdm", "--preset", "sky", "--model", vdm)
    del content["model"]["denoise_fn.downs.0.0.mlp.1.weight"]
    torch.save(content, vdm)
    assert "not those of this U-Net" in error("vdm", "--preset", "sky", "--model", vdm)
    torch.save({"model": {}, "more": _Hostile(tmp_path / "effect")}, vdm)
    assert "refused" in error("vdm", "--preset", "sky", "--model", vdm)
    assert not (tmp_path / "effect").exists()
    assert main(["convert", "lvmd"]) == 2
    assert "did you mean 'lvdm'?" in capsys.readouterr().err


def test_help_names_the_releases(capsys):
    assert main(["convert", "lvdm", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--ae" in text and "--dm" in text and "class_names" not in text
