"""Official files are read, and nothing in a hostile one is run."""

import argparse
import os
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vgen.errors import UserError
from vgen.weights.unpickle import read_official


def lfae_layout() -> dict[str, object]:
    """A checkpoint in the layout of the LFDM release: {example, epoch, networks, optimizer}, made small."""
    nets = {
        "generator": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        "region_predictor": nn.Conv2d(3, 2, 3),
        "bg_predictor": nn.Linear(4, 6),
    }
    parameters = [p for net in nets.values() for p in net.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))
    sum(p.square().sum() for p in parameters).backward()
    optimizer.step()
    states = {name: net.state_dict() for name, net in nets.items()}
    return {"example": 46500, "epoch": 100, **states, "optimizer": optimizer.state_dict()}


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("zip_form", [True, False], ids=["zip", "legacy"])
def test_official_layout(tmp_path: Path, zip_form: bool) -> None:
    content = lfae_layout()
    torch.save(content, tmp_path / "RegionMM.pth", _use_new_zipfile_serialization=zip_form)
    read = read_official(tmp_path / "RegionMM.pth")
    assert same(content, read)
    assert read["generator"]["1.num_batches_tracked"].dtype == torch.int64


def test_tensors_from_another_device_and_parameters(tmp_path: Path) -> None:
    content = {"diffusion": OrderedDict(null_cond_emb=nn.Parameter(torch.randn(1, 8)))}
    torch.save(content, tmp_path / "dm.pth")
    read = read_official(tmp_path / "dm.pth")["diffusion"]["null_cond_emb"]
    assert type(read) is torch.Tensor and not read.requires_grad
    assert torch.equal(read, content["diffusion"]["null_cond_emb"].detach())


def test_safetensors(tmp_path: Path) -> None:
    save_file({"a.weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "x.bin")
    assert torch.equal(read_official(tmp_path / "x.bin")["a.weight"], torch.arange(6.0).reshape(2, 3))
    data = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-4])
    with pytest.raises(UserError, match="cannot be read"):
        read_official(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("zip_form", [True, False], ids=["zip", "legacy"])
def test_numpy_numbers(tmp_path: Path, zip_form: bool) -> None:
    content = {
        "loss": np.float64(0.25),
        "step": np.int64(7),
        "table": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
    }
    torch.save(content, tmp_path / "n.pth", _use_new_zipfile_serialization=zip_form)
    read = read_official(tmp_path / "n.pth")
    assert read["loss"] == 0.25 and read["step"] == 7 and type(read["step"]) is int
    assert torch.equal(read["table"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(read["fortran"], torch.arange(6).reshape(2, 3))
    assert read["big_endian"].tolist() == [0, 1, 2]


def test_numpy_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"o": np.array([None, "x"], dtype=object)}, tmp_path / "o.pth")
    with pytest.raises(UserError, match="not numeric"):
        read_official(tmp_path / "o.pth")


def test_allowed_class_becomes_a_record(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1e-3), "w": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"argparse\.Namespace"):
        read_official(tmp_path / "a.pth")
    read = read_official(tmp_path / "a.pth", allow=["argparse.Namespace"])
    assert read["args"] == {"class": "argparse.Namespace", "arguments": [], "state": {"lr": 1e-3}}
    assert torch.equal(read["w"], torch.ones(2))
    with pytest.raises(UserError):  # the permission ended with the call
        read_official(tmp_path / "a.pth")


class Hostile:
    """Runs a function when it is unpickled by Python's own unpickler."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def hostile_files(folder: Path, effect: Path) -> dict[str, Path]:
    shell = Hostile(os.system, f"touch {effect}")
    python = Hostile(eval, f"open({str(effect)!r}, 'w').close()")
    executed = Hostile(exec, f"open({str(effect)!r}, 'w').close()")
    nested = {"generator": OrderedDict(w=torch.ones(2), hidden=python)}
    files = {}
    for name, content in {"shell": shell, "eval": python, "exec": executed, "nested": nested}.items():
        for zip_form in (True, False):
            for protocol in (2, 4):
                path = folder / f"{name}_{zip_form}_{protocol}.pth"
                torch.save(content, path, _use_new_zipfile_serialization=zip_form, pickle_protocol=protocol)
                files[path.stem] = path
        path = folder / f"{name}_plain.pth"
        path.write_bytes(pickle.dumps(content))
        files[path.stem] = path
    return files


def test_hostile_files_are_refused_and_not_run(tmp_path: Path) -> None:
    effect = tmp_path / "effect"
    files = hostile_files(tmp_path, effect)
    # the files do what they claim when read without protection
    torch.load(files["nested_True_2"], weights_only=False)
    assert effect.exists()
    effect.unlink()
    for name, path in files.items():
        with pytest.raises(UserError) as caught:
            read_official(path, allow=["collections.Counter"])
        expected = "system" if name.startswith("shell") else "exec" if name.startswith("exec") else "eval"
        assert "refused" in caught.value.what and expected in caught.value.what, (name, caught.value.what)
        assert not effect.exists(), name


def test_allowing_a_dangerous_name_still_runs_nothing(tmp_path: Path) -> None:
    effect = tmp_path / "effect"
    files = hostile_files(tmp_path, effect)
    read = read_official(files["nested_True_2"], allow=["builtins.eval", "__builtin__.eval"])
    assert "eval" in read["generator"]["hidden"]["class"]
    assert not effect.exists()


def test_classes_permitted_by_other_libraries_are_not_used(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
        with pytest.raises(UserError, match="refused"):
            read_official(tmp_path / "a.pth")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"net": nn.Linear(2, 2)}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_official(tmp_path / "m.pth")


@pytest.mark.parametrize("zip_form", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, zip_form: bool, kept: float) -> None:
    torch.save(lfae_layout(), tmp_path / "whole.pth", _use_new_zipfile_serialization=zip_form)
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match="damaged or cut short") as caught:
        read_official(tmp_path / "cut.pth")
    assert caught.value.where == str(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "neither"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-LFS"),
        (pickle.dumps([1, 2, 3]), "damaged"),
    ],
)
def test_wrong_kinds(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_official(tmp_path / "x.pth")


def test_missing_folder_and_not_a_dict(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such"):
        read_official(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="folder"):
        read_official(tmp_path)
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_official(tmp_path / "list.pth")


class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)


def test_whole_modules_in_torch_first_format(tmp_path):
    """Torch's own reader refuses them, whatever is allowed."""
    path, module = tmp_path / "whole.pth", Whole()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch cannot read a test's source
        torch.save({"net": module, "n": 3}, path, _use_new_zipfile_serialization=False)
    allow = [f"{Whole.__module__}.Whole", "torch.nn.modules.linear.Linear"]
    with pytest.raises(UserError):
        read_official(path, allow)
    found = read_official(path, allow, modules=True)
    inside = found["net"]["state"]["_modules"]["layer"]["state"]["_parameters"]
    assert found["n"] == 3 and torch.equal(inside["weight"], module.layer.weight)
    with pytest.raises(UserError, match="Whole"):
        read_official(path, allow[1:], modules=True)
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(UserError, match="cut short"):
        read_official(path, allow, modules=True)
    path.write_bytes(content.replace(b"torch.nn.modules.linear", b"os\nsystem\n").replace(b"collections", b"os"))
    with pytest.raises(UserError):
        read_official(path, allow, modules=True)
