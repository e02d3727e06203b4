"""Reading and writing of videos: order, damage, lying headers, sizes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vgen.errors import UserError
from vgen.video.io import (
    Examination,
    UnreadableVideo,
    encode,
    examine,
    iter_frames,
    list_frames,
    natural_key,
    probe,
    read_frames,
    write_gif,
    write_video,
)


def ramp(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame t is grey level 10 t, so that a frame can be told by its colour."""
    return np.broadcast_to(
        np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10, (frames, height, width, 3)
    ).copy()


def levels(frames: np.ndarray) -> list[int]:
    """Number of each frame, read off its colour."""
    return [round(float(frame.mean()) / 10) for frame in frames]


@pytest.fixture
def avi(tmp_path: Path) -> Path:
    """An XviD file with one key frame, as in UCF-101."""
    path = tmp_path / "clip.avi"
    encode(path, ramp(), 25, "mpeg4", {"flags": "+qscale", "global_quality": "236", "g": "300"}, codec_tag="XVID")
    return path


def test_frames_come_in_decode_order_and_in_the_order_asked_for(avi: Path) -> None:
    assert levels(read_frames(avi)) == list(range(12))
    assert levels(read_frames(avi, [7, 2, 2, 11])) == [7, 2, 2, 11]
    assert [round(float(f.mean()) / 10) for f in iter_frames(avi)] == list(range(12))


def test_probe_and_count_agree(avi: Path) -> None:
    info = probe(avi)
    assert (info.frames, info.height, info.width, info.fps) == (12, 48, 64, 25.0)
    assert examine(avi) == Examination(12)


def test_one_frame_too_many_is_forgiven_and_more_is_not(avi: Path) -> None:
    assert levels(read_frames(avi, [10, 11, 12])) == [10, 11, 11]
    with pytest.raises(UnreadableVideo, match="only 12 can be decoded"):
        read_frames(avi, [13])
    with pytest.raises(ValueError, match="frame indices"):
        read_frames(avi, [-1])


def test_frame_folders_sort_by_number(tmp_path: Path) -> None:
    folder = tmp_path / "clip.mp4"  # TaiChi-HD: a folder with a video's name
    folder.mkdir()
    for number in (1, 2, 9, 10, 11):
        Image.new("RGB", (8, 6), (number * 10,) * 3).save(folder / f"f{number}.png")
    (folder / "notes.txt").write_text("no picture")
    assert [p.stem for p in list_frames(folder)] == ["f1", "f2", "f9", "f10", "f11"]
    assert levels(read_frames(folder, [3, 0])) == [10, 1]
    assert levels(read_frames(folder, [5])) == [11]
    assert probe(folder).frames == 5
    assert sorted(["b10", "b9", "a2", "10", "9"], key=natural_key) == ["9", "10", "a2", "b9", "b10"]
    assert sorted(["09", "9", "a²", "a 9", "a"], key=natural_key) == ["09", "9", "a", "a 9", "a²"]
    assert sorted(["9", "09"], key=natural_key) == ["09", "9"]  # whatever order the folder lists them in


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mp4", torch.zeros(3, 12, 32, 32, dtype=torch.uint8), 10)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "hollow").mkdir()
    for name in ("cut.mp4", "empty.mp4", "text.mp4", "missing.mp4", "hollow"):
        for read in (probe, read_frames):
            with pytest.raises(UnreadableVideo) as caught:
                read(tmp_path / name)
            assert isinstance(caught.value, UserError)
            assert name in str(caught.value)
            assert caught.value.path == str(tmp_path / name)


def test_truncated_avi_gives_what_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    encode(tmp_path / "whole.avi", noise, 25, "mpeg4", codec_tag="XVID")
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    count = examine(tmp_path / "cut.avi").frames
    assert 5 < count < 30
    assert read_frames(tmp_path / "cut.avi", [count - 1]).shape == (1, 48, 64, 3)


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "0.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(UnreadableVideo, match="several sizes"):
        read_frames(tmp_path)
    (tmp_path / "1.png").write_bytes(b"broken")
    with pytest.raises(UnreadableVideo, match="damaged picture"):
        read_frames(tmp_path)


def test_write_video_enlarges_by_whole_factors_and_evens_sizes(tmp_path: Path) -> None:
    clip = torch.zeros(3, 4, 33, 47, dtype=torch.uint8)
    clip[0] = 200
    write_video(tmp_path / "a.mp4", clip, 12.5)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (4, 166, 236, 12.5)  # 5 x 33 and 5 x 47, made even
    write_video(tmp_path / "b.mp4", clip, 12.5, upscale_to=0)
    assert (probe(tmp_path / "b.mp4").height, probe(tmp_path / "b.mp4").width) == (34, 48)
    write_gif(tmp_path / "c.gif", clip[:1], 10)
    assert probe(tmp_path / "c.gif").frames >= 1
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4", "c.gif"]  # no temporary files
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "d.mp4", clip.float(), 10)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", torch.zeros(3, 4, 32, 32, dtype=torch.uint8), 10)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(Exception, match="no_such_encoder"):
        encode(tmp_path / "a.mp4", ramp(), 10, codec="no_such_encoder")
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        encode(tmp_path / name, ramp(), 10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
