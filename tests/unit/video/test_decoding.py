"""torchcodec reads what PyAV reads, and leaves the rest to it."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from vgen.data.clips import ClipRecord
from vgen.data.dataset import FileReader
from vgen.errors import UserError
from vgen.video import decoding
from vgen.video.decoding import decode_frames, use_torchcodec, why_no_torchcodec
from vgen.video.io import encode, read_frames

loads = pytest.mark.skipif(why_no_torchcodec() is not None, reason=f"torchcodec: {why_no_torchcodec()}")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """XviD with one key frame, H.264 with B-frames, and a GIF of the same moving picture."""
    place = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    video = np.stack([np.roll(texture, 3 * t, axis=1) for t in range(40)])[:, :64, :96]
    encode(
        place / "a.avi", video, 25, "mpeg4", {"flags": "+qscale", "global_quality": "354", "g": "300"}, codec_tag="XVID"
    )
    encode(place / "b.mp4", video, 30, options={"crf": "16", "bf": "3", "g": "250"})
    return place


@loads
@pytest.mark.parametrize("name", ["a.avi", "b.mp4"])
def test_frames_are_those_of_pyav(clips, name):
    for indices in ([0], [39], [5, 6, 7], [30, 2, 2, 17]):
        ours, theirs = decode_frames(clips / name, indices), read_frames(clips / name, indices)
        assert ours.shape == theirs.shape and ours.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs).max() <= 3
    reader = FileReader(clips, "torchcodec")
    record = ClipRecord(name, start=4, frames=30, height=64, width=96)
    part = reader.read(record, np.arange(3))
    assert np.abs(part.astype(int) - read_frames(clips / name, [4, 5, 6])).max() <= 3


@loads
def test_what_torchcodec_leaves_to_pyav(clips, tmp_path):
    assert decode_frames(clips / "a.avi", [40]) is None  # a header may count one frame too many
    assert decode_frames(clips / "a.avi", [0], size=(96, 64)) is None
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("text.mp4", "folder.mp4", "missing.mp4"):
        assert decode_frames(tmp_path / name, [0]) is None
    record = ClipRecord("a.avi", frames=41, height=64, width=96)
    last = FileReader(clips, "torchcodec").read(record, np.array([39, 40]))
    assert np.array_equal(last[0], last[1])


def test_auto_takes_pyav_where_torchcodec_does_not_load(clips, monkeypatch):
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    decoding.why_no_torchcodec.cache_clear()
    try:
        assert use_torchcodec("auto") is False and use_torchcodec("pyav") is False
        record = ClipRecord("a.avi", frames=40, height=64, width=96)
        assert np.array_equal(FileReader(clips).read(record, np.arange(2)), read_frames(clips / "a.avi", [0, 1]))
        with pytest.raises(UserError, match=r"torchcodec cannot be used: torchcodec is not installed[\s\S]*ffmpeg"):
            use_torchcodec("torchcodec")
    finally:
        decoding.why_no_torchcodec.cache_clear()


@pytest.mark.skipif(find_spec("torchcodec") is None, reason="torchcodec is not installed")
def test_the_reason_is_one_line():
    assert why_no_torchcodec() is None or "\n" not in why_no_torchcodec()
