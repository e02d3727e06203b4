"""Official files of MoCoGAN and TGAN, written here in their own layouts, become exports."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import vgen
from tests.tiny_gan import small_mocogan, small_tgan
from vgen.cli.commands.convert import families
from vgen.cli.main import main
from vgen.errors import UserError
from vgen.models.mocogan import MoCoGAN, VideoGenerator
from vgen.video import ClipSpec
from vgen.weights.whole_modules import read_module


def convert(*arguments):
    return main(["convert", *(str(a) for a in arguments)])


@torch.no_grad()
def taught(network):
    """Weights and statistics that no initialisation gives."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    return network.eval()


def official_generator(ours):
    """A module with the release's names: GRUCell and one Sequential."""

    class Released(nn.Module):
        def __init__(self):
            super().__init__()
            layers = []
            for level in ours.levels:
                layers += [level.conv, level.norm, nn.ReLU(True)]
            self.main = nn.Sequential(*layers, ours.to_pixel, nn.Tanh())
            self.recurrent = nn.GRUCell(ours.motion, ours.motion)
            self.recurrent.load_state_dict(
                {key.removesuffix("_l0"): value for key, value in ours.recurrent.state_dict().items()}
            )

    Released.__module__, Released.__qualname__ = "models", "VideoGenerator"
    return Released


@pytest.fixture
def saved(tmp_path):
    """A generator of ours, and a function that saves it as the release does."""
    model = small_mocogan()
    taught(model.generator)
    kind = official_generator(model.generator)

    def save(name, **options):
        sys.modules["models"] = types.ModuleType("models")
        sys.modules["models"].VideoGenerator = kind
        try:
            torch.save(kind(), tmp_path / name, **options)
        finally:
            del sys.modules["models"]
        return tmp_path / name

    return model, save


def test_names():
    assert {"mocogan", "tgan"} <= set(families())


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("form", ["before 1.6", "archive", "state dict"])
def test_mocogan(saved, tmp_path, capsys, form):
    model, save = saved
    if form == "state dict":
        file = tmp_path / "state.pth"
        torch.save(official_generator(model.generator)().state_dict(), file)
    else:
        file = save("generator_00100.pytorch", _use_new_zipfile_serialization=form == "archive")
    shape = ["--content", 6, "--size", 32, "--preset", "folder", "--categories", '["walk","run","jump"]']
    assert convert("mocogan", "--generator", file, *shape, "--out", tmp_path / "out") == 0
    assert "found their place" in (printed := capsys.readouterr().out) and "3 categories: walk, run, jump" in printed
    ours = vgen.load(tmp_path / "out")
    assert isinstance(ours, MoCoGAN) and ours.clip_spec.class_names == ("walk", "run", "jump")
    clip = ours.sample(n=2, label=["run", "jump"], seeds=[3, 4])
    torch.testing.assert_close(clip, model.sample(n=2, label=[1, 2], seeds=[3, 4]), atol=1e-6, rtol=0)


def test_mocogan_files_that_are_none(saved, tmp_path, capsys):
    _, save = saved
    file = save("generator.pytorch")
    (tmp_path / "cut.pytorch").write_bytes(file.read_bytes()[:-400])
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    cases = {"cut.pytorch": "damaged", "other.pth": "not those of MoCoGAN's generator", "none.pth": "no such"}
    for name, message in cases.items():
        given = ["mocogan", "--generator", tmp_path / name, "--preset", "folder", "--out", tmp_path / "no"]
        assert convert(*given) == 2
        assert message in capsys.readouterr().err, name
    given = ["mocogan", "--generator", file, "--preset", "folder", "--content", 6, "--categories", '["a"]']
    assert convert(*given, "--out", tmp_path / "no") == 2
    assert "1 names for 3 categories" in capsys.readouterr().err


def test_nothing_in_a_module_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("this must not be printed",)

    for name, old in (("old", False), ("new", True)):
        path = tmp_path / name
        torch.save(Evil(), path, _use_new_zipfile_serialization=old)
        with pytest.raises(UserError, match="holds no module"):
            read_module(path)
    content = io.BytesIO()
    _Claims(content, protocol=2).dump({"_parameters": {}})
    with zipfile.ZipFile(tmp_path / "large", "w") as archive:
        archive.writestr("x/data.pkl", content.getvalue())
    with pytest.raises(UserError, match="larger than the file"):
        read_module(tmp_path / "large")


class _Claims(pickle.Pickler):
    """Says of every dict that it is a storage of a tera of numbers."""

    def persistent_id(self, value):
        return ("storage", torch.FloatStorage, "0", "cpu", 10**12) if isinstance(value, dict) else None


class _Old:
    """A parameter as PyTorch before 0.4 wrote it: a class that is made with a tensor, and a state of three."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()

    def __reduce__(self):
        return nn.Parameter, (self.tensor,), (True, False, {})


def test_parameters_of_early_versions(tmp_path):
    layer = nn.Linear(3, 2)
    state = layer.state_dict()
    layer._parameters = {name: _Old(value) for name, value in layer._parameters.items()}
    torch.save(layer, tmp_path / "old", _use_new_zipfile_serialization=False)
    found = read_module(tmp_path / "old")
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


def npz(path, network, names):
    """A snapshot with Chainer's names; a norm has a counter N."""
    arrays = {}
    kinds = {"weight": "W", "bias": "b"}
    norm_kinds = {"weight": "gamma", "bias": "beta", "running_mean": "avg_mean", "running_var": "avg_var"}
    for ours, theirs in names.items():
        module = network.get_submodule(ours)
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for key, value in module.state_dict().items():
            if key != "num_batches_tracked":
                arrays[f"{theirs}/{(norm_kinds if is_norm else kinds)[key]}"] = value.numpy()
        if is_norm:
            arrays[f"{theirs}/N"] = np.array(7)
    np.savez(path, **arrays)
    return path


def test_tgan(tmp_path, capsys):
    model = small_tgan(ClipSpec(16, 32, 32))
    taught(model.generator)
    seeds = {f"levels.{i}.{part}": f"{name}{i}" for i in range(4) for part, name in (("conv", "dc"), ("norm", "bn"))}
    seeds["to_code"] = "dc4"
    images = {
        f"levels.{i}.{part}": f"{name}{i + 1}" for i in range(4) for part, name in (("conv", "dc"), ("norm", "bn"))
    }
    images |= {"from_slow": "l0s", "from_fast": "l0f", "norm_slow": "bn0s", "norm_fast": "bn0f", "to_pixel": "dc5"}
    files = [
        npz(tmp_path / "fsgen.npz", model.generator.seeds, seeds),
        npz(tmp_path / "vgen.npz", model.generator.images, images),
    ]
    given = ["tgan", "--preset", "ucf101", "--seeds", files[0], "--images", files[1]]
    assert convert(*given, "--out", tmp_path / "out") == 0
    assert "16 frames of 32x32" in capsys.readouterr().out
    ours = vgen.load(tmp_path / "out")
    torch.testing.assert_close(ours.sample(n=2, seeds=[3, 4]), model.sample(n=2, seeds=[3, 4]), atol=1e-6, rtol=0)
    given[4], given[6] = files[1], files[0]  # each in the other's place
    assert convert(*given, "--out", tmp_path / "no") == 2
    assert "not those of TGAN's generators" in capsys.readouterr().err


def test_a_generator_may_be_built_without_a_judge():
    model = MoCoGAN(ClipSpec(16, 32, 32), VideoGenerator(6, 4, channels=2), None, None)
    assert model.sample().shape == (1, 3, 16, 32, 32) and model.discriminators == {}
