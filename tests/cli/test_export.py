import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import vgen
from tests.tiny_lfdm import autoencoder, faces, lfdm, trainer
from vgen.cli.main import main
from vgen.errors import UserError
from vgen.weights import export as weights_export


def export(run, out, *arguments):
    return main(["export", str(run), "--out", str(out), *(str(a) for a in arguments)])


def clips(source, **options):
    model = vgen.load(source, **options)
    image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32)
    return model.sample(image=image, label=[0, 1], n=2, seeds=[3, 4])


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("weights", ["auto", "raw", "ema"])
def test_the_same_clips_to_the_bit_also_from_another_place(tiny_run, tmp_path, weights):
    wanted = clips(tiny_run, weights=weights)
    assert export(tiny_run, tmp_path / "out") == 0
    assert torch.equal(clips(tmp_path / "out", weights=weights), wanted)
    shutil.rmtree(tiny_run)
    moved = shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert torch.equal(clips(moved, weights=weights), wanted)


def test_what_is_in_it(tiny_run, tmp_path):
    out = tmp_path / "out"
    assert export(tiny_run, out) == 0
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    codec = {"codec/config.json", "codec/model.safetensors"}
    assert names == {"README.md", "config.json", "model.safetensors", "ema.safetensors", *codec}
    config = json.loads((out / "config.json").read_text())
    assert config["init_args"]["codec"]["path"] == "run://codec"
    assert config["stage"] == "diffusion" and config["step"] == 2 and config["clips"] == 4 and config["vgen"]
    assert str(tiny_run) not in (out / "config.json").read_text() + (out / "README.md").read_text()
    assert {oct(p.stat().st_mode & 0o777) for p in out.rglob("*.safetensors")} == {oct(0o666 & ~_umask())}
    assert isinstance(vgen.load(out / "codec").reconstruct({"video": torch.zeros(1, 3, 2, 32, 32)}), torch.Tensor)


def _umask():
    import os

    current = os.umask(0)
    os.umask(current)
    return current


def test_the_first_stage_alone(tiny_run, tmp_path):
    options = ["--stage", "autoencoder", "--license", "cc-by-4.0", "--name", "Faces"]
    assert export(tiny_run, tmp_path / "out", *options) == 0
    video = torch.linspace(-1, 1, 3 * 4 * 32 * 32).reshape(1, 3, 4, 32, 32)
    ours, theirs = vgen.load(tmp_path / "out"), vgen.load(tiny_run, stage="autoencoder")
    assert torch.equal(ours.reconstruct({"video": video}), theirs.reconstruct({"video": video}))
    facts = front_matter(tmp_path / "out")
    assert facts["license"] == "cc-by-4.0" and "pipeline_tag" not in facts
    text = (tmp_path / "out" / "README.md").read_text()
    assert "# Faces" in text and "model.reconstruct(" in text and "vgen sample" not in text


def test_the_card_shows_clips_figures_and_cost(tiny_run, tmp_path):
    assert main(["sample", str(tiny_run), "--label", "fear"]) == 0
    (tiny_run / "evaluation").mkdir()
    metric = {"value": 0.8412, "low": 0.7, "high": 0.9, "n": 96, "unit": "share"}
    record = {"protocol": "held out/64", "metrics": {"read": metric}, "settings": {"chance": 1 / 7}, "note": "A note."}
    (tiny_run / "evaluation" / "faces.json").write_text(json.dumps(record))
    assert export(tiny_run, tmp_path / "out") == 0
    facts = front_matter(tmp_path / "out")
    assert facts["library_name"] == "vgen" and facts["license"] == "unknown" and facts["datasets"] == ["faces"]
    assert {"vgen", "lfdm", "image-to-video"} <= set(facts["tags"]) and facts["pipeline_tag"] == "image-to-video"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "![generated clips](samples/grid.gif)" in text and (tmp_path / "out" / "samples" / "grid.gif").is_file()
    assert "### held out/64" in text and "| read | 0.841 | 0.700 to 0.900 | 96 |" in text and "A note." in text
    assert "| diffusion | 2 | 4 |" in text and "CPU process" in text
    assert 'label="anger"' in text and "--image face.png --label anger" in text
    assert "Ni, Shi" in text  # the paper


def test_a_model_built_in_python(finished_run, tmp_path):
    root = finished_run.parent / "faces"
    pairs, whole = faces(root, pairs=True), faces(root)
    first = autoencoder(pairs.clip_spec)
    trainer(tmp_path / "a").fit(first, datamodule=pairs)
    second = lfdm(first, whole.clip_spec)
    trainer(tmp_path / "b", ema=True).fit(second, datamodule=whole)
    source = tmp_path / "b" / "checkpoints" / "last.ckpt"
    wanted = clips(source, weights="raw")
    # the auto-encoder was given as a module: the checkpoint holds it
    image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32)
    assert torch.equal(second.sample(image=image, label=[0, 1], n=2, seeds=[3, 4]), wanted)
    assert export(source, tmp_path / "out") == 0
    assert torch.equal(clips(tmp_path / "out", weights="raw"), wanted)
    assert not (tmp_path / "out" / "codec").exists()


def test_a_hub_id(tiny_run, tmp_path, monkeypatch):
    wanted = clips(tiny_run)
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--somebody--faces"
    assert export(tiny_run, repository / "snapshots" / revision) == 0
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    import huggingface_hub._snapshot_download as module

    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, getattr(constants, name))
    assert torch.equal(clips("somebody/faces"), wanted)
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "face.png"
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(image)
    assert main(["sample", "somebody/faces", "--image", str(image), "--label", "fear"]) == 0
    assert (tmp_path / "generated" / "grid.mp4").is_file()  # not in the cache
    with pytest.raises(UserError, match="cannot get 'somebody/else'"):
        vgen.load("somebody/else")


def test_a_slip_in_a_local_path_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/lfdm_mug").mkdir(parents=True)
    with pytest.raises(UserError, match="no such file or folder") as caught:
        vgen.load("runs/lfdm_mgu")
    assert "runs/lfdm_mug" in str(caught.value)


def test_folders_that_hold_something_are_kept(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for options in ([], ["--overwrite"]):
        assert export(tiny_run, out, *options) == 2
        assert "is no export" in capsys.readouterr().err
    assert (out / "thesis.tex").is_file()
    assert export(tiny_run, tmp_path / "two") == 0
    (tmp_path / "two" / "old.txt").touch()
    assert export(tiny_run, tmp_path / "two") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert export(tiny_run, tmp_path / "two", "--overwrite") == 0
    assert not (tmp_path / "two" / "old.txt").exists()


def test_a_failure_leaves_the_previous_export(tiny_run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert export(tiny_run, out) == 0
    before = (out / "config.json").read_bytes()
    monkeypatch.setattr(weights_export, "_save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    assert export(tiny_run, out, "--overwrite") == 1
    assert (out / "config.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == ["out"]


def test_parts_that_changed_are_noticed(tiny_run, tmp_path, capsys):
    assert export(tiny_run, tmp_path / "out") == 0
    file = tmp_path / "out" / "codec" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match="has changed"):
        vgen.load(tmp_path / "out")
    last = tiny_run / "autoencoder" / "checkpoints" / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | {"more": 1}, last)
    assert export(tiny_run, tmp_path / "again") == 2
    assert "has changed" in capsys.readouterr().err and not (tmp_path / "again").exists()
    last.unlink()
    assert export(tiny_run, tmp_path / "again") == 2


def test_averaged_weights_of_a_part_become_its_raw_ones(tiny_run, tmp_path):
    # a second stage on top of the exported, averaged diffusion model would be such a case; here the codec is one
    root = tiny_run / "autoencoder" / "checkpoints" / "last.ckpt"
    content = torch.load(root, weights_only=True)
    shadow = {name: value + 1 for name, value in content["state_dict"].items() if name.endswith("final.weight")}
    torch.save(content | {"callbacks": {"EMA": {"shadow": shadow}}}, root)
    file = tiny_run / "diffusion" / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["vgen"]["init_args"]["codec"] |= {"weights": "ema", "sha256": None}
    torch.save(content, file)
    wanted = clips(tiny_run)
    assert export(tiny_run, tmp_path / "out") == 0
    assert torch.equal(clips(tmp_path / "out"), wanted)
    assert not (tmp_path / "out" / "codec" / "ema.safetensors").exists()


def test_paths_of_this_machine_are_pointed_out(tiny_run, tmp_path, capsys):
    file = tiny_run / "diffusion" / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["vgen"]["init_args"]["conditioner"] = {
        "class_path": "vgen.conditioning.TextEncoder",
        "init_args": {"model": str(tmp_path), "dim": 8},
    }
    content["state_dict"] |= {"conditioner.table": torch.zeros(7, 8), "conditioner.table_filled": torch.tensor(True)}
    torch.save(content, file)
    assert export(tiny_run, tmp_path / "out") == 0
    assert f"init_args.conditioner.init_args.model: {tmp_path}" in capsys.readouterr().out
