"""`vgen data check` names every kind of damage."""

import argparse
import shutil

import numpy as np
import pytest

from vgen.cli.commands import data
from vgen.data.check import check_videos, find_videos
from vgen.errors import UserError
from vgen.video.io import encode


def run(*words):
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    return data.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def damaged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    encode(tmp_path / "good.mp4", noise, 10)
    encode(tmp_path / "brief.mp4", noise[:3], 10)
    shutil.copy(tmp_path / "good.mp4", tmp_path / "twin.mp4")
    (tmp_path / "empty.mp4").touch()
    encode(tmp_path / "whole.avi", noise, 10, "mpeg4", codec_tag="XVID")
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "liar.avi").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "whole.avi").unlink()
    from PIL import Image

    (tmp_path / "odd").mkdir()
    for t in range(5):
        Image.new("RGB", (15, 16), (t, 0, 0)).save(tmp_path / f"odd/{t}.png")
    return tmp_path


def test_every_problem_is_named(damaged):
    (damaged / "notes.txt").write_text("no clip")
    paths, others = find_videos(damaged)
    assert others == {".txt": 1} and paths == ["brief.mp4", "empty.mp4", "good.mp4", "liar.avi", "odd", "twin.mp4"]
    found = {(f.path, f.problem) for f in check_videos(damaged, paths, min_frames=4)}
    assert found == {
        ("brief.mp4", "short"),
        ("empty.mp4", "unreadable"),
        ("liar.avi", "damaged"),  # its last frame is half there
        ("liar.avi", "lying header"),
        ("odd", "odd size"),
        ("twin.mp4", "duplicate"),
    }


def test_the_command_prints_names_and_exits_with_one(damaged, capsys):
    assert run("check", damaged, "--min-frames", 4) == 1
    out = capsys.readouterr().out
    assert all(name in out for name in ("brief.mp4", "empty.mp4", "liar.avi", "odd", "twin.mp4"))
    assert "6 clips checked, 5 with something to mend" in out
    for name in ("brief.mp4", "empty.mp4", "liar.avi", "twin.mp4"):
        (damaged / name).unlink()
    shutil.rmtree(damaged / "odd")
    assert run("check", damaged) == 0
    assert "all well" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such folder"):
        run("check", damaged / "nowhere")


def test_make_fake_check_and_pack(tmp_path, capsys):
    assert run("make-fake", "mug", "--out", tmp_path / "mug", "--size", 16, "--subjects", 4, "--takes", 1) == 0
    assert run("check", tmp_path / "mug", "--dataset", "mug") == 0
    assert run("pack", "mug", "--root", tmp_path / "mug", "--out", tmp_path / "packed") == 0
    assert "28 clips" in capsys.readouterr().out
    for dataset, clips in (("mhad", 54), ("natops", 48), ("folder", 10)):
        assert run("make-fake", dataset, "--out", tmp_path / dataset, "--size", 32, "--subjects", 2, "--takes", 1) == 0
        assert run("check", tmp_path / dataset, "--dataset", dataset) == 0
        pack = ["pack", dataset, "--root", tmp_path / dataset, "--out", tmp_path / f"{dataset}.packed", "--size", 16]
        assert run(*pack) == 0
        assert f"{clips} clips" in capsys.readouterr().out
    with pytest.raises(UserError, match="not empty"):
        run("make-fake", "mug", "--out", tmp_path / "mug")
    with pytest.raises(UserError, match="--size"):
        run("pack", "mug", "--root", tmp_path / "mug", "--out", tmp_path / "other", "--size", "big")
