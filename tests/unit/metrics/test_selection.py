"""Which frames of which videos: every policy, and the sources that they come from."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny_detector import moving_clips
from vgen.data.clips import ClipRecord, fingerprint
from vgen.data.sampling import clip_rng, frame_indices
from vgen.errors import UserError
from vgen.metrics import Protocol
from vgen.metrics.selection import Selection
from vgen.metrics.sources import ClipSource, FolderClips, RecordClips, TensorClips
from vgen.video.io import write_video


def source(lengths, names=None):
    return TensorClips([torch.zeros(3, length, 2, 2, dtype=torch.uint8) for length in lengths], names=names)


def starts(clips):
    return [(clip.video, clip.frames[0]) for clip in clips]


def test_random_windows_are_uniform_seeded_and_depend_on_nothing_else():
    protocol = Protocol("p", 3, stride=2, n_real=None)
    lengths = [5 + i % 4 for i in range(400)]
    clips = Selection(source(lengths), protocol).real()
    assert [clip.video for clip in clips] == list(range(400))
    for clip in clips:
        assert np.diff(clip.frames).tolist() == [2, 2] and clip.frames[-1] < lengths[clip.video]
    longest = [clip.frames[0] for clip in clips if lengths[clip.video] == 8]
    assert sorted(set(longest)) == [0, 1, 2, 3] and min(np.bincount(longest)) > 10
    assert Selection(source(lengths), protocol).real() == clips
    assert Selection(source(lengths), protocol).real(1) != clips
    assert Selection(source(lengths), protocol.but(seed=1)).real() == Selection(source(lengths), protocol).real(1)


def test_videos_are_drawn_once_each_and_legacy_order_takes_the_first():
    names = [f"v{9 - i}" for i in range(10)]  # the source is not sorted
    protocol = Protocol("p", 4, n_real=6, start_policy="first")
    drawn = Selection(source([4] * 10, names), protocol).real()
    assert len({clip.video for clip in drawn}) == 6
    assert {clip.video for clip in drawn} != {
        clip.video for clip in Selection(source([4] * 10, names), protocol).real(1)
    }
    legacy = Selection(source([4] * 10, names), protocol.but(legacy_order=True)).real()
    assert [names[clip.video] for clip in legacy] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert len(Selection(source([4] * 3), protocol).real()) == 3  # fewer videos: all of them, once


def test_all_windows_count_long_videos_more():
    protocol = Protocol("p", 4, n_real=None, start_policy="all_windows", per_video="all")
    clips = Selection(source([4, 6, 3]), protocol).real()
    assert starts(clips) == [(0, 0), (1, 0), (1, 1), (1, 2)]
    some = Selection(source([4, 60, 3]), protocol.but(n_real=20)).real()
    assert len(set(starts(some))) == 20 and sum(clip.video == 1 for clip in some) >= 19
    one = Selection(source([4, 60, 3]), protocol.but(per_video="one")).real()
    assert [clip.video for clip in one] == [0, 1]


def test_chunks_do_not_overlap_and_strides_part_them():
    protocol = Protocol("p", 4, n_real=None, start_policy="chunks", per_video="all")
    assert starts(Selection(source([9, 3]), protocol).real()) == [(0, 0), (0, 4)]
    woven = Selection(source([17]), protocol.but(stride=2)).real()
    assert [clip.frames for clip in woven] == [(0, 2, 4, 6), (1, 3, 5, 7), (8, 10, 12, 14), (9, 11, 13, 15)]


def test_uniform_frames_are_those_of_the_training_loader():
    for length in (40, 41, 97, 163):
        clips = Selection(source([length]), Protocol("p", 40, start_policy="uniform")).real()
        assert list(clips[0].frames) == frame_indices("uniform", length, 40, clip_rng(0, 0, 0)).tolist()


def test_short_videos():
    lengths = [3, 8, 5]
    assert [c.video for c in Selection(source(lengths), Protocol("p", 5)).real()] == [1, 2]
    filled = Selection(source(lengths), Protocol("p", 5, short="repeat_last", start_policy="first")).real()
    assert filled[0].frames == (0, 1, 2, 2, 2) and len(filled) == 3
    with pytest.raises(UserError, match="00000000 has not the 5 frames"):
        Selection(source(lengths), Protocol("p", 5, short="error")).real()
    with pytest.raises(UserError, match="no real video has the 9 frames that p takes; lengths go from 3 to 8"):
        Selection(source(lengths), Protocol("p", 9)).real()
    assert [c.video for c in Selection(source(lengths), Protocol("p", 2, least_frames=8)).real()] == [1]


def test_generated_clips_are_the_first_frames_and_trials_take_turns():
    protocol = Protocol("p", 3, n_fake=2, fake_stride=2, trials=2)
    clips = [Selection(source([5] * 4), protocol).fake(trial) for trial in (0, 1)]
    assert [[clip.video for clip in trial] for trial in clips] == [[0, 1], [2, 3]]
    assert clips[0][0].frames == (0, 2, 4)
    assert Selection(source([5] * 3), protocol).fake(1) == Selection(source([5] * 3), protocol).fake(0)
    with pytest.raises(UserError, match="has 4 frames, and p takes 5"):
        Selection(source([5, 4]), protocol).fake()


def test_floor_takes_other_videos_then_other_windows_then_halves():
    protocol = Protocol("p", 4, n_real=4)
    real, other, how = Selection(source([6] * 10), protocol).floor(6)
    assert how == "disjoint videos" and len(other) == 6
    assert not {clip.video for clip in real} & {clip.video for clip in other}
    assert real == Selection(source([6] * 10), protocol).real()
    real, other, how = Selection(source([30] * 5), protocol.but(n_real=5)).floor(5)
    assert how == "other windows of the same videos" and starts(real) != starts(other) and len(other) == 5
    real, other, how = Selection(source([4] * 7), protocol.but(n_real=7)).floor(7)
    assert how == "halves of the videos" and sorted((len(real), len(other))) == [3, 4]


def test_clip_lists_have_a_hash():
    selection = Selection(source([9] * 5), Protocol("p", 4, n_real=3))
    assert selection.list_hash(selection.real()) == selection.list_hash(selection.real())
    assert selection.list_hash(selection.real()) != selection.list_hash(selection.real(1))


def test_folder_of_files_and_of_pictures(tmp_path):
    clips = moving_clips(2, frames=5, side=16)
    write_video(tmp_path / "b" / "video_10.mp4", clips[0], 8, upscale_to=1)
    for t in range(11):  # frame_10 comes after frame_2
        folder = tmp_path / "a" / "pictures.mp4"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), t, np.uint8)).save(folder / f"frame_{t}.png")
    (tmp_path / "notes.txt").write_text("no video")
    found = FolderClips(tmp_path, labels="folder", data="UCF-101", split="train")
    assert isinstance(found, ClipSource)
    assert (found.ids, found.lengths, found.labels) == (["a/pictures.mp4", "b/video_10.mp4"], [11, 5], [0, 1])
    assert found.clip(0, [2, 10])[:, :, 0, 0].tolist() == [[2, 10]] * 3
    assert found.clip(1, [0, 4]).shape == (3, 2, 16, 16)
    before = found.fingerprint
    assert FolderClips(tmp_path).fingerprint == before
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(tmp_path / "a" / "pictures.mp4" / "frame_3.png")
    assert FolderClips(tmp_path).fingerprint != before
    with pytest.raises(UserError, match="no such folder"):
        FolderClips(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder is empty"):
        FolderClips(tmp_path / "empty")


def test_records_of_a_data_module():
    records = [ClipRecord("a.avi", 1, "x", frames=9), ClipRecord("b.avi", 0, "y", frames=7)]

    def read(record, frames):
        assert frames.dtype == np.int64
        return np.stack([np.full((4, 6, 3), int(t) + record.label, np.uint8) for t in frames])

    clips = RecordClips(records, read, fingerprint(records), "MUG", "test")
    assert isinstance(clips, ClipSource)
    assert (clips.ids, clips.lengths, clips.labels, clips.subjects) == (["a.avi", "b.avi"], [9, 7], [1, 0], ["x", "y"])
    assert clips.texts is None and clips.clip(0, (3, 5))[0, :, 0, 0].tolist() == [4, 6]
    assert clips.clip(0, (3, 5)).shape == (3, 2, 4, 6)
    assert RecordClips([ClipRecord("a.avi", frames=9)], read, "").labels is None


def test_tensors_have_a_fingerprint():
    clips = moving_clips(3)
    assert TensorClips(clips).fingerprint == TensorClips(clips.clone()).fingerprint
    assert TensorClips(clips).fingerprint != TensorClips(clips.flip(0)).fingerprint
    assert TensorClips(clips).fingerprint != TensorClips(clips, labels=[0, 1, 2]).fingerprint
    assert isinstance(TensorClips(clips), ClipSource)
