"""An official SVG file, a pickle of whole modules, becomes an export without any of its classes being imported."""

import argparse
import fractions
import re
import sys
import types

import pytest
import torch
from torch import nn

import vgen
from vgen.cli.main import main
from vgen.models.svg import SVG, SVGNetwork
from vgen.video import ClipSpec

PARTS = {"encoder": "encoder", "decoder": "decoder", "frame_predictor": "lstm", "posterior": "gaussian_lstm"}
PARTS |= {"prior": "gaussian_lstm"}


def official_names(network):
    """Our state dict under the release's names."""
    last = len(network.encoder.levels) + 1
    names = {}
    for key, value in network.state_dict().items():
        new = re.sub(r"\.lstm\.((?:weight|bias)_[ih]h)_l(\d)", r".lstm.\2.\1", key)
        new = re.sub(r"^frame_predictor\.output\.", "frame_predictor.output.0.", new)
        new = new.replace(".mean.", ".mu_net.").replace(".log_variance.", ".logvar_net.")
        for ours, number in (("conv", 0), ("norm", 1)):
            for side, first, shift in (("encoder", "c", 1), ("decoder", "upc", 2)):
                match = re.match(rf"{side}\.levels\.(\d)\.(\d)\.{ours}\.", new)
                if match and network.backbone == "dcgan":
                    new = new.replace(match[0], f"{side}.{first}{int(match[1]) + shift}.main.{number}.")
                elif match:
                    new = new.replace(match[0], f"{side}.{first}{int(match[1]) + shift}.{match[2]}.main.{number}.")
            new = new.replace(f"encoder.head.{ours}.", f"encoder.c{last}.{number}.")
            new = new.replace(f"decoder.foot.{ours}.", f"decoder.upc1.{number}.")
        new = new.replace("decoder.last.", f"decoder.upc{last}.{0 if network.backbone == 'dcgan' else 1}.")
        names[new] = value
    return names


def module_of(cls, state):
    """Modules inside modules that have these tensors by these names."""
    module = cls()
    for name, value in state.items():
        *way, last = name.split(".")
        place = module
        for part in way:
            if part not in place._modules:
                place.add_module(part, nn.Sequential())
            place = place._modules[part]
        if "running" in last or "num_batches" in last:
            place.register_buffer(last, value.clone())
        else:
            place.register_parameter(last, nn.Parameter(value.clone()))
    return module


@pytest.fixture
def save(monkeypatch, tmp_path):
    """Writes a network as the official script does, with classes that only this process has."""

    def write(network, options, legacy, side="dcgan_64"):
        state, content = official_names(network), {"opt": options}
        monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
        for part, kind in PARTS.items():
            own = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
            if own:
                home = f"models.{side if part in ('encoder', 'decoder') else 'lstm'}"
                module = sys.modules.get(home) or types.ModuleType(home)
                cls = getattr(module, kind, None) or type(kind, (nn.Module,), {"__module__": home})
                setattr(module, kind, cls)
                monkeypatch.setitem(sys.modules, home, module)
                content[part] = module_of(cls, own)
                if part not in ("encoder", "decoder"):
                    content[part].hidden = [(torch.zeros(2, 4), torch.zeros(2, 4))]
        path = tmp_path / "model.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        for home in [name for name in sys.modules if name.partition(".")[0] == "models"]:
            monkeypatch.delitem(sys.modules, home)
        return path

    return write


@torch.no_grad()
@pytest.mark.parametrize(
    ("backbone", "prior", "side", "legacy"),
    [("dcgan", "learned", 64, True), ("vgg", "fixed", 32, False), ("vgg", "learned", 128, True)],
)
def test_converted(save, tmp_path, capsys, backbone, prior, side, legacy):
    network = SVGNetwork(backbone, prior, 12, 3, 4, 16)
    model = SVG(ClipSpec(5, side, side, 1), network, 3)
    for value in network.parameters():
        value.add_(0.05 * torch.randn_like(value))
    options = argparse.Namespace(n_past=3, n_future=2, beta=1e-5, last_frame_skip=False, optimizer="adam")
    path = save(network, options, legacy, f"{backbone}_{64 if side < 128 else 128}")
    arguments = ["svg", "--preset", "moving_mnist", "--model", str(path), "--out", str(tmp_path / "out")]
    assert main(["convert", *arguments]) == 0
    said = capsys.readouterr().out
    assert "tensors found their place" in said and "3 past frames, trained to predict 2" in said
    found = vgen.load(tmp_path / "out")
    assert (found.beta, found.past_frames, found.clip_spec) == (1e-5, 3, ClipSpec(5, side, side, 1, fps=10.0))
    past = torch.rand(2, 1, 3, side, side) * 2 - 1
    given = {"conditions": {"video": past}, "n": 2, "frames": 6, "options": {"posterior": "sample"}}
    torch.testing.assert_close(found.sample(**given), model.sample(**given), atol=0, rtol=0)


def test_refused(tmp_path, capsys):
    torch.save({"encoder": {}}, tmp_path / "other.pth")
    arguments = ["convert", "svg", "--preset", "bair", "--model", str(tmp_path / "other.pth"), "--out", "x"]
    assert main(arguments) == 2 and "not an SVG checkpoint" in capsys.readouterr().err
    torch.save({"frame_predictor": fractions.Fraction(1, 2)}, tmp_path / "evil.pth")
    assert main([*arguments[:5], str(tmp_path / "evil.pth"), "--out", "x"]) == 2
    assert "fractions" in capsys.readouterr().err
