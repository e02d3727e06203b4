import argparse

import pytest
import torch

from vgen.cli.commands import doctor
from vgen.errors import UserError


def call(*arguments):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(autouse=True)
def empty_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path


def test_without_a_recipe_nothing_is_needed(capsys):
    assert call() == 0
    out = capsys.readouterr().out
    assert "everything needed is there" in out
    for root in ("data/mug", "data/mhad", "data/natops", "data/clips", "data/fake_mug"):
        assert any(line.startswith(f"  --  {root} ") and "not found" in line for line in out.splitlines()), root
    for word in ("torch", "torchvision", "h264", "vgg19-dcbb9e9d.pth", "bert-base-cased", "wandb", "GB"):
        assert word in out


def test_a_missing_data_set_is_needed(tmp_path, capsys):
    (tmp_path / "full" / "001").mkdir(parents=True)
    assert call("--data", "full") == 0
    assert call("--data", "full", "--data", "absent") == 1
    assert "1 needed and missing: absent" in capsys.readouterr().out


def test_a_recipe_says_what_is_needed(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "stages:\n"
        "  a:\n"
        "    data: {class_path: MUG, init_args: {root: data/mug}}\n"
        "    model:\n"
        "      init_args:\n"
        "        perceptual: {class_path: vgen.losses.VGGPyramid}\n"
        "        text: {class_path: TextEncoder, init_args: {model: bert-base-cased}}\n"
    )
    assert call("--config", recipe) == 1
    out = capsys.readouterr().out
    assert "3 needed and missing: data/mug, VGG19 (perceptual loss), bert-base-cased" in out
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(
        "stages: {a: {data: {init_args: {root: made}}, model: {init_args: {perceptual: null, "
        "text: {init_args: {random_init: true}}}}}}"
    )
    (tmp_path / "made" / "001").mkdir(parents=True)
    assert call("--config", recipe, "--config", tiny) == 0


def test_weights_that_a_recipe_starts_from(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("stages: {a: {init_from: {path: runs/other}, model: {codec: {path: stage://b/last}}}}")
    assert call("--config", recipe) == 1
    assert "1 needed and missing: runs/other" in capsys.readouterr().out
    (tmp_path / "runs" / "other").mkdir(parents=True)
    assert call("--config", recipe) == 0


def test_a_version_that_does_not_fit(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_requirements", lambda: ["torch<1", "no-such-package>=2", "wandb; extra == 'x'"])
    assert call() == 1
    out = capsys.readouterr().out
    assert f"{torch.__version__}, needs <1" in out and "missing: pip install 'no-such-package>=2'" in out
    assert "2 needed and missing: torch, no-such-package" in out


def test_declared_requirements_are_checked(capsys):
    call()
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in ("lightning", "jsonargparse", "kornia", "huggingface-hub", "pyyaml"))


def test_a_full_disk(monkeypatch, capsys):
    from types import SimpleNamespace

    usage = SimpleNamespace(free=2**28, total=2**28)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert call() == 1
    out = capsys.readouterr().out
    assert "0.2 GB (little for a full-size run)" in out and "1 needed and missing: free here" in out
    usage.free = 5 * 2**30
    assert call() == 0


def test_a_gpu_that_this_torch_was_not_built_for(monkeypatch, capsys):
    from types import SimpleNamespace

    card = SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30, major=9, minor=0)
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    monkeypatch.setattr(cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    assert call() == 0 and "NVIDIA H200, 141 GB, bf16\n" in capsys.readouterr().out
    monkeypatch.setattr(cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    assert call() == 1 and "built for sm_75, sm_80 alone" in capsys.readouterr().out


def test_weights_in_the_cache_are_found(tmp_path, capsys):
    path = tmp_path / "torch" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert call() == 0
    assert str(path) in capsys.readouterr().out


def test_the_key_is_never_printed(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "secret-value")
    call()
    out = capsys.readouterr().out
    assert "secret-value" not in out and "set" in out


def test_a_config_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no such config file"):
        call("--config", tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        call("--config", tmp_path / "bad.yaml")
