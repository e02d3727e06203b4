"""`vgen sample --frames` beyond the training's clips: piece by piece, after kills, on several ranks."""

import json
import signal

import numpy as np
import pytest

import vgen
from tests import tiny_vdm
from tests.mechanics.processes import Processes, free_port
from vgen.cli.main import main
from vgen.cli.sampling.pieces import PieceStore
from vgen.video import to_uint8
from vgen.video.io import probe, read_frames

FRAMES, CLIPS = 15, 3
OPTIONS = ["--frames", str(FRAMES), "--n", str(CLIPS), "--batch", "2", "--option", "steps=2"]


def sample(model, out, *more):
    return main(["sample", str(model), *OPTIONS, "--out", str(out), *(str(word) for word in more)])


def written(folder):
    """Content of all files but the store's; the grid's JSON has no time in it either."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_vdm.export(tiny_vdm.vdm(), tmp_path_factory.mktemp("vdm") / "export")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """What a call makes that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole")
    assert sample(model, out) == 0
    return out


def test_the_videos_are_those_of_the_model(model, whole):
    names = [f"{i:04d}_clip_{i}" for i in range(CLIPS)]
    assert sorted(p.stem for p in whole.glob("*.mp4")) == [*names, "grid"]
    assert all(probe(whole / f"{name}.mp4").frames == FRAMES for name in [*names, "grid"])
    assert not list(whole.glob(".sampling-*"))
    made = vgen.load(model).sample({}, 2, FRAMES, [0, 1], {"steps": 2})
    shown = read_frames(whole / f"{names[1]}.mp4").astype(int)
    factor = shown.shape[1] // tiny_vdm.SIDE
    exact = to_uint8(made[1]).permute(1, 2, 3, 0).numpy().repeat(factor, 1).repeat(factor, 2)
    assert abs(shown - exact).mean() < 12  # h264 with halved chroma
    record = json.loads((whole / "grid.json").read_text())
    assert record["files"] == names and record["options"] == ["steps=2"]


@pytest.mark.parametrize("after", [2, 5])
def test_an_interrupted_call_goes_on_to_the_same_bytes(model, whole, tmp_path, monkeypatch, capsys, after):
    """Stopped before, between and behind the pieces of two batches; the pieces that are there are not made again."""
    note, seen = PieceStore.note, []

    def noted(self, *args):
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(args[0])
        note(self, *args)

    monkeypatch.setattr(PieceStore, "note", noted)
    with pytest.raises(KeyboardInterrupt):
        from vgen.cli.commands.sample import run  # the command line turns the interruption into an exit code

        run(_arguments(model, tmp_path))
    assert not (tmp_path / "grid.mp4").exists() and list(tmp_path.glob(".sampling-*"))
    monkeypatch.setattr(PieceStore, "note", lambda self, *args: (seen.append(args[0]), note(self, *args))[1])
    assert sample(model, tmp_path) == 0
    assert "goes on where an earlier call" in capsys.readouterr().out
    assert len(seen) == 8  # four pieces of two batches
    assert written(tmp_path) == written(whole)


def _arguments(model, out):
    import argparse

    from vgen.cli.commands.sample import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(model), *OPTIONS, "--out", str(out)])


def test_a_killed_process_goes_on_to_the_same_bytes(model, whole, tmp_path):
    out = tmp_path / "out"
    process = Processes(tmp_path / "output", {})
    process.fork(["sample", str(model), *OPTIONS, "--out", str(out)])
    process.await_output("10/15 frames", 60)
    process.signal_all(signal.SIGKILL)
    process.wait()
    assert not (out / "grid.mp4").exists()
    assert sample(model, out) == 0
    assert {name: data for name, data in written(out).items() if not name.startswith(".")} == written(whole)
    assert not [name for name in written(out) if name.endswith(".tmp.mp4")]


def test_two_ranks_make_the_same_bytes(model, whole, tmp_path):
    out, port = tmp_path / "out", free_port()
    ranks = Processes(tmp_path / "output", {"TORCHELASTIC_RUN_ID": "test"})
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    meeting |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    for rank in "01":
        ranks.fork(["sample", str(model), *OPTIONS, "--out", str(out)], **meeting, RANK=rank, LOCAL_RANK=rank)
    codes, output = ranks.wait(180)
    assert codes == [0, 0], output
    assert written(out) == written(whole)


def test_another_call_leaves_nothing_of_an_abandoned_one(model, tmp_path, monkeypatch):
    note = PieceStore.note
    monkeypatch.setattr(
        PieceStore, "note", lambda self, name, *args: 1 / 0 if name > "0001" else note(self, name, *args)
    )
    with pytest.raises(ZeroDivisionError):
        from vgen.cli.commands.sample import run

        run(_arguments(model, tmp_path))
    monkeypatch.undo()
    (tmp_path / "kept.mp4").write_bytes(b"")
    assert (tmp_path / "0000_clip_0.mp4").is_file()
    assert main(["sample", str(model), "--seeds", "7", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["0000_clip_7.mp4", "grid.mp4", "kept.mp4"]
    assert not list(tmp_path.glob(".sampling-*"))


def test_solvers_and_steps_of_later_clips(model, tmp_path):
    made = {}
    for options in (["sampler=DPMSolverPP", "steps=3"], ["sampler=UniPC", "steps=3"], ["steps=4", "next_steps=2"]):
        out = tmp_path / options[-1] / options[0]
        arguments = [word for option in options for word in ("--option", option)]
        assert main(["sample", str(model), "--frames", "9", *arguments, "--out", str(out)]) == 0
        made[tuple(options)] = read_frames(out / "0000_clip_0.mp4").astype(int)
    clips = list(made.values())
    assert all(clip.shape[0] == 9 for clip in clips)
    assert abs(clips[0] - clips[2]).mean() > 1 and np.isfinite(clips[1]).all()


def test_memory_does_not_grow_with_the_length(model, tmp_path, monkeypatch):
    """No tensor of a whole video: neither the model nor the writers see more frames than a clip has."""
    from vgen.cli.sampling import making

    seen = []
    convert = making.to_uint8
    monkeypatch.setattr(making, "to_uint8", lambda piece: (seen.append(piece.shape[2]), convert(piece))[1])
    assert main(["sample", str(model), "--frames", "40", "--option", "steps=1", "--out", str(tmp_path)]) == 0
    assert sum(seen) == 40 and max(seen) == tiny_vdm.FRAMES
    assert probe(tmp_path / "grid.mp4").frames == 40


def test_conditions_of_an_unconditional_model(model, tmp_path, capsys):
    for option in ("--label", "--text"):
        assert main(["sample", str(model), option, "left", "--out", str(tmp_path)]) == 2
        assert "unconditional" in capsys.readouterr().err
    labelled = tiny_vdm.export(tiny_vdm.vdm(labels=True), tmp_path / "labelled")
    assert main(["sample", str(labelled), "--frames", "8", "--option", "steps=1", "--gif"]) == 0
    folder = labelled / "generated"
    assert sorted(p.stem for p in folder.glob("0*.mp4")) == ["0000_left_0", "0001_right_0"]
    assert (folder / "grid.gif").is_file()


def test_a_damaged_piece_is_named(model, tmp_path, monkeypatch, capsys):
    note = PieceStore.note
    monkeypatch.setattr(PieceStore, "note", lambda self, name, n, *args: 1 / 0 if n > 2 else note(self, name, n, *args))
    with pytest.raises(ZeroDivisionError):
        from vgen.cli.commands.sample import run

        run(_arguments(model, tmp_path))
    monkeypatch.undo()
    piece = next(tmp_path.glob(".sampling-*/0000_clip_0/000001.safetensors"))
    piece.write_bytes(b"broken")
    assert sample(model, tmp_path) == 2
    error = capsys.readouterr().err
    assert "cannot be read" in error and "000001.safetensors" in error
