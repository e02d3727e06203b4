"""A disk that is full in the middle of a write costs nothing that was there, and the same command goes on later."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vgen
from tests.mechanics.disk import FullDisk, ShutsTheDisk, SizeLimit, apart, mounted
from tests.mechanics.runs import RECIPE, REPOSITORY, assert_same, checkpoint, checkpoint_path, command, fit, rows
from vgen.cli.main import main
from vgen.codecs.cache import LatentCache
from vgen.data.fake import write_folder
from vgen.data.packing import PackedClips
from vgen.errors import UserError
from vgen.files import WriteError, atomic_folder, atomic_path, write_json, write_text

ONLY = ("--only", "autoencoder")


@pytest.fixture(params=["full disk", "size limit"])
def disk(request, tmp_path):
    """A disk that can be shut, and its folder."""
    if request.param == "size limit":
        yield SizeLimit(tmp_path)
        return
    with mounted(tmp_path / "disk") as full:
        if full is None:
            pytest.skip("only root may mount a file system")
        yield full


def state(folder):
    """Bytes of every file below a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "filler"}


def shut_and(disk, left, work):
    """Runs `work` apart on the shut disk, and opens it again."""

    def shut():
        disk.shut(left)
        return work()

    try:
        return apart(shut)
    finally:
        disk.open()


def assert_told(said, code, path):
    """One line of what, one of where, one of what to do; no traceback."""
    lines = said[said.index("error: ") :].splitlines()
    assert code == 2 and len(lines) == 3
    assert "space" in lines[0] or "size" in lines[0]
    assert lines[1].startswith("  where: ") and path in lines[1]
    assert "same command" in lines[2] and "--resume" in lines[2]
    assert "Traceback" not in said


def shutting_recipe(tmp_path):
    path = tmp_path / "shutting.yaml"
    watcher = "        - {class_path: tests.mechanics.disk.ShutsTheDisk}\n"
    path.write_text(RECIPE.read_text().replace("      callbacks:\n", f"      callbacks:\n{watcher}"))
    return path


def test_a_checkpoint_in_training(finished, disk, tmp_path, monkeypatch):
    """The disk is shut in step 4, whose checkpoint does not fit any more; that of step 2 stays."""
    recipe, run = shutting_recipe(tmp_path), disk.root / "toy"
    monkeypatch.setattr(ShutsTheDisk, "disk", disk)
    monkeypatch.setattr(ShutsTheDisk, "step", 4)
    monkeypatch.setattr(ShutsTheDisk, "left", 8192)
    try:
        code, said = apart(lambda: main(command(run, recipe=recipe)))
    finally:
        disk.open()
    assert_told(said, code, str(checkpoint_path(run, "autoencoder")))
    assert checkpoint(run, "autoencoder")["global_step"] == 2
    assert type(vgen.load(run)).__name__ == "ToyAutoencoder"
    assert not list(run.rglob(".*"))
    monkeypatch.setattr(ShutsTheDisk, "disk", None)
    assert_same(finished, fit(run, "--resume", recipe=recipe))


def test_metrics_that_are_cut_short(finished, tmp_path, monkeypatch):
    """The limit falls into a row of the log: the run that goes on writes the same rows as an uninterrupted one."""
    recipe, run = shutting_recipe(tmp_path), tmp_path / "toy"
    size = len((finished / "autoencoder" / "metrics.csv").read_bytes().split(b"\n4,")[0])
    monkeypatch.setattr(ShutsTheDisk, "disk", SizeLimit(tmp_path))
    monkeypatch.setattr(ShutsTheDisk, "step", 3)
    monkeypatch.setattr(ShutsTheDisk, "left", size - 30)
    code, said = apart(lambda: main(command(run, *ONLY, recipe=recipe)))
    assert_told(said, code, "metrics.csv")
    content = (run / "autoencoder" / "metrics.csv").read_text()
    assert not content.endswith("\n")
    monkeypatch.setattr(ShutsTheDisk, "disk", None)
    fit(run, *ONLY, "--resume", recipe=recipe)
    assert rows(run, "autoencoder") == rows(finished, "autoencoder")


def test_packing_a_shard(disk, tmp_path):
    """Shards that were finished before the disk was full are kept; the rest is written by the same command again."""
    root, out = write_folder(tmp_path / "clips", size=64, subjects=3, frames=40), disk.root / "packed"
    words = ["data", "pack", "folder", "--root", str(root), "--out", str(out), "--shard-mb", "1"]
    code, said = shut_and(disk, 3 << 20 if isinstance(disk, FullDisk) else 1 << 19, lambda: main(words))
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.u8")}
    assert_told(said, code, f"shard-{len(kept):05d}.u8")
    assert not (out / "index.json").exists() and not list(out.glob(".*"))
    assert main(words) == 0
    packed = PackedClips(out)
    assert len(packed.index.records) == 15 and packed.verify() == []
    shards = sorted(path.name for path in out.iterdir())
    assert shards == ["index.json", *(f"shard-{n:05d}.u8" for n in range(8))]
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    before = state(out)
    assert main(words) == 0 and state(out) == before


def test_an_export_over_an_older_one(finished, disk):
    run = shutil.copytree(finished, disk.root / "toy")
    words = ["export", str(run), "--out", str(disk.root / "model"), "--overwrite"]
    assert main(words) == 0
    before = state(disk.root / "model")
    content = torch.load(checkpoint_path(run), weights_only=True)
    content["state_dict"]["denoiser.decoder.bias"] += 1
    torch.save(content, checkpoint_path(run))
    code, said = shut_and(disk, 4096 if isinstance(disk, FullDisk) else 500, lambda: main(words))
    assert_told(said, code, "model")
    assert state(disk.root / "model") == before and not list(disk.root.glob(".*"))
    vgen.load(disk.root / "model")
    assert main(words) == 0
    bias = load_file(disk.root / "model" / "model.safetensors")["denoiser.decoder.bias"]
    assert torch.equal(bias, content["state_dict"]["denoiser.decoder.bias"])


def test_a_report_over_an_older_one(finished, disk):
    run = shutil.copytree(finished, disk.root / "toy")
    assert main(["report", str(run)]) == 0
    before = state(run)
    (run / "diffusion" / "metrics.csv").write_text((finished / "autoencoder" / "metrics.csv").read_text())
    # The size that a film strip may have, in a temporary file, but not the page.
    code, said = shut_and(disk, 8192 if isinstance(disk, FullDisk) else 50_000, lambda: main(["report", str(run)]))
    assert_told(said, code, "report.html")
    assert (run / "report.html").read_bytes() == before[Path("report.html")] and not list(run.glob(".*"))
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() != before[Path("report.html")]


def test_an_evaluation_over_an_older_one(disk, finished, monkeypatch):
    """The command up to the write is what it always is; what is measured does not matter here."""
    from vgen.cli.evaluation import image_to_video as evaluate

    run = shutil.copytree(finished, disk.root / "toy")
    monkeypatch.setattr(evaluate, "_check_model", lambda *_: None)
    monkeypatch.setattr(evaluate, "_settings", lambda *_: {})
    monkeypatch.setattr(evaluate, "table", lambda *_: [])
    words = ["evaluate", str(run)]
    for value in (1, 2):
        result = {"metrics": {"a": {"value": value}}, "settings": {}, "note": "x" * 50000}
        monkeypatch.setattr(evaluate, "_evaluate", lambda *_, result=result: result)
        path = run / "evaluation" / "image_to_video.json"
        if value == 1:
            assert main(words) == 0
            before = path.read_bytes()
        else:
            code, said = shut_and(disk, 4096, lambda: main(words))
            assert_told(said, code, "image_to_video.json")
            assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
            assert main(words) == 0 and json.loads(path.read_text())["metrics"]["a"]["value"] == 2


def test_a_latent_cache_over_an_older_one(disk):
    file = disk.root / "latents.safetensors"
    batches = [{"path": ["a", "b"], "video": torch.ones(2, 30000)}]
    LatentCache(file, {"codec": 1}).build(batches, lambda batch: {"z": batch["video"]})
    before = file.read_bytes()
    newer = LatentCache(file, {"codec": 2})

    def build():
        try:
            newer.build(batches, lambda batch: {"z": 2 * batch["video"]})
        except WriteError as error:
            return str(error)
        return "written"

    told, _ = shut_and(disk, 8192, build)
    assert "cannot write" in told and str(file) in told and "make room" in told
    assert file.read_bytes() == before and os.listdir(disk.root).count(file.name) == 1
    assert not newer.open() and LatentCache(file, {"codec": 1}).open()
    newer.build(batches, lambda batch: {"z": 2 * batch["video"]})
    assert newer.open() and torch.equal(newer(["b"], torch.device("cpu"))["z"], 2 * torch.ones(1, 30000))


def test_what_a_kill_leaves_is_removed_at_the_next_write(tmp_path):
    """SIGKILL within a write: the temporary file stays, and goes when the same name is written again."""
    program = (
        "import os, signal, sys, vgen\nfrom vgen.files import atomic_path, atomic_folder\n"
        "with atomic_path(sys.argv[1]) as a, atomic_folder(sys.argv[2]) as b:\n"
        "    a.write_text('half'); (b / 'file').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "file.txt").write_text("whole")
    words = [sys.executable, "-c", program, str(tmp_path / "file.txt"), str(tmp_path / "folder")]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "file.txt").read_text() == "whole" and len(os.listdir(tmp_path)) == 3
    with atomic_path(tmp_path / "other.txt"), atomic_path(tmp_path / "other.txt"):
        assert len(os.listdir(tmp_path)) == 5  # neither what is another file's, nor what a living process writes
    write_text(tmp_path / "file.txt", "new")
    with atomic_folder(tmp_path / "folder"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "folder", "other.txt"]


def test_a_mistake_in_the_program_is_not_taken_for_the_disk(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": object()})
    assert not os.listdir(tmp_path)


# Whose checkpoint it is ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "toy")


def foreign(tmp_path, *arguments):
    """Another run of the same recipe."""
    return fit(tmp_path / "foreign", *ONLY, "--all_stages.seed_everything=9", *arguments)


def test_a_checkpoint_of_another_run_is_not_gone_on_with(finished, run, tmp_path, capsys):
    other = foreign(tmp_path)
    shutil.copy(checkpoint_path(other, "autoencoder"), checkpoint_path(run, "autoencoder"))
    longer = "--all_stages.trainer.max_steps=9"
    fit(run, *ONLY, "--resume", longer, code=2)
    told = capsys.readouterr().err
    assert "last.ckpt is a checkpoint of another run" in told and str(checkpoint_path(run, "autoencoder")) in told
    shutil.copy(checkpoint_path(finished, "autoencoder"), checkpoint_path(run, "autoencoder"))
    fit(run, *ONLY, "--resume", longer)
    assert checkpoint(run, "autoencoder")["global_step"] == 9


def test_a_checkpoint_of_another_run_or_stage_is_not_handed_on(run, tmp_path, capsys):
    shutil.rmtree(run / "diffusion")
    shutil.copy(checkpoint_path(foreign(tmp_path), "autoencoder"), checkpoint_path(run, "autoencoder"))
    fit(run, "--only", "diffusion", "--resume", code=2)
    assert "of another run" in capsys.readouterr().err
    with pytest.raises(UserError, match="of another run"):
        vgen.load(run)


def test_a_checkpoint_of_another_stage_is_named(run):
    shutil.copy(checkpoint_path(run, "autoencoder"), checkpoint_path(run))
    with pytest.raises(UserError, match=r"of (stage 'autoencoder'|another run)"):
        vgen.load(run)


def test_a_checkpoint_in_an_empty_folder_is_nobodys(finished, tmp_path, capsys):
    path = checkpoint_path(tmp_path / "new", "autoencoder")
    path.parent.mkdir(parents=True)
    shutil.copy(checkpoint_path(finished, "autoencoder"), path)
    fit(tmp_path / "new", *ONLY, "--resume", "--all_stages.trainer.max_steps=9", code=2)
    assert "of another run" in capsys.readouterr().err


def test_overwriting_leaves_nothing_of_the_run_before(run):
    before = checkpoint(run, "autoencoder")["vgen"]["run"]
    fit(run, "--overwrite", *ONLY, "--all_stages.trainer.max_steps=2")
    assert not checkpoint_path(run, "autoencoder", "best").exists()
    after = checkpoint(run, "autoencoder")["vgen"]["run"]
    assert after == (run / "autoencoder" / "run_id").read_text().strip() != before


def test_the_best_of_something_else_is_not_handed_on(run, tmp_path, capsys):
    """The metric that decided is monitored no more: best.ckpt is set aside, and the handoff says that there is none."""
    recipe = tmp_path / "unmonitored.yaml"
    text = RECIPE.read_text().replace(", monitor: val/loss", "").replace("autoencoder/last", "autoencoder/best")
    recipe.write_text(text)
    shutil.rmtree(run / "diffusion")
    fit(run, "--resume", "--all_stages.trainer.max_steps=9", recipe=recipe, code=2)
    assert "monitors no metric" in capsys.readouterr().err
    folder = checkpoint_path(run, "autoencoder").parent
    assert sorted(p.name for p in folder.iterdir()) == ["best.old.ckpt", "last.ckpt"]


def test_the_best_of_an_abandoned_training_is_not_the_new_ones(run):
    """last.ckpt was deleted to begin anew: best.ckpt of before is not this training's."""
    checkpoint_path(run, "autoencoder").unlink()
    (run / "autoencoder" / "done.json").unlink()
    shutil.rmtree(run / "diffusion")
    fit(run, "--resume", *ONLY, "--all_stages.trainer.max_steps=3")
    folder = checkpoint_path(run, "autoencoder").parent
    assert sorted(p.name for p in folder.iterdir()) == ["best.old.ckpt", "last.ckpt"]
