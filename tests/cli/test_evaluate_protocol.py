"""`vgen evaluate` under a protocol: two folders, a data set and a folder, a checkpoint."""

import argparse
import csv
import json
import os
import shutil
import signal

import pytest
import torch
import yaml

import vgen.video
from tests.mechanics.processes import Processes, free_port
from tests.tiny_detector import moving_clips, write_classifier
from tests.tiny_lfdm import FRAMES, SIDE
from vgen.cli.evaluation.sides import DataBlock
from vgen.cli.main import main
from vgen.cli.trained import open_trained, stage_config
from vgen.metrics import generated, load_protocol
from vgen.metrics.selection import Selection
from vgen.metrics.sources import RecordClips
from vgen.models.lfdm import LatentFlowAutoencoder
from vgen.report.read import read_run
from vgen.video import to_float, to_uint8
from vgen.video.io import write_video

PROTOCOL = {"n_frames": FRAMES, "n_real": None, "n_fake": 6, "split": "test", "short": "repeat_last"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two folders of videos, a protocol and a detector."""
    root = tmp_path_factory.mktemp("evaluate")
    for name, seed, noise, count in (("real", 0, 0.1, 10), ("fake", 1, 0.8, 7)):
        for number, clip in enumerate(moving_clips(count, FRAMES + 2, SIDE, seed, noise)):
            write_video(root / name / "ab"[number % 2] / f"{number:02d}.mp4", clip, 8, upscale_to=0)
    metrics = ["fvd", "kvd", "vb_temporal_flickering"]
    (root / "tiny.yaml").write_text(yaml.safe_dump({**PROTOCOL, "metrics": metrics}))
    os.symlink(write_classifier(root / "own"), root / "classifier_tiny.safetensors")
    os.symlink(next((root / "own").glob("*.json")), root / "classifier_tiny.json")
    return root


def line(place, generated, *arguments, out=None):
    fixed = ["--protocol", place / "tiny.yaml", "--detector", place / "classifier_tiny.safetensors", "--cache", "none"]
    fixed += ["--batch", 2] + ([] if out is None else ["--out", out])
    return ["evaluate", *map(str, (generated, *fixed, *arguments))]


def evaluate(place, generated, *arguments, out=None, name=None):
    """Runs the command; returns the record."""
    assert main(line(place, generated, *arguments, *(["--name", name] if name else []), out=out)) == 0
    return json.loads((out / f"{name or 'fake_tiny'}.json").read_text())


def test_two_folders(place, tmp_path, capsys):
    record = evaluate(place, place / "fake", "--real", place / "real", out=tmp_path)
    out = capsys.readouterr().out
    assert "frechet_small/tiny" in out and "10/10 real clips" in out and "fvd/" not in out
    assert set(record["metrics"]) == {"frechet_small/tiny", "kernel_small/tiny", "vb_temporal_flickering/tiny"}
    metric = record["metrics"]["frechet_small/tiny"]
    assert (metric["n"], metric["n_real"]) == (6, 10) and metric["floor"]["value"] < metric["value"]
    assert record["settings"]["protocol"]["n_frames"] == FRAMES
    near, spread = record["study"]["neighbours"], record["study"]["diversity"]
    assert near["training_clips"] == 10 and near["reference_is"] == "training clips, each without itself"
    assert near["generated"]["n"] == 6 and near["reference"]["n"] == 10
    assert spread["ratio"] == pytest.approx(spread["generated"] / spread["real"])
    rows = list(csv.DictReader((tmp_path / "fake_tiny.csv").read_text().splitlines()))
    assert float(rows[0]["value"]) == metric["value"] and rows[0]["detector_kind"] == "small"
    page = (tmp_path / "fake_tiny.html").read_text()
    assert page.count("data:video/mp4") == 6 + 10 + 6 * 4, "both grids, and six rows of a clip and three neighbours"
    assert "http" not in page.replace("http-equiv", "") and "frechet_small/tiny" in page


def test_copies_of_training_clips_are_found(place, tmp_path):
    copies = shutil.copytree(place / "real" / "a", tmp_path / "fake")
    # The same windows: the clips are noise, whose windows have little in common.
    asked = ("--clips", 5, "--change", "start_policy=first", "--no-floor")
    record = evaluate(place, copies, "--real", place / "real", *asked, out=tmp_path, name="copies")
    near = record["study"]["neighbours"]
    assert near["generated"]["median"] == 0 < near["reference"]["least"]
    assert near["share_closer_than_reference_5"] == 1.0
    assert record["protocol"] == "tiny+start_policy=first+n_fake=5"


def test_classes_of_folders(place, tmp_path, capsys):
    asked = ("--metrics", "cfvd", "--training-clips", 0, "--no-floor")
    record = evaluate(place, place / "fake", "--real", place / "real", *asked, out=tmp_path)
    assert set(record["metrics"]["frechet_by_class_small/tiny"]["per_group"]) == {"0", "1"}
    assert "study" not in record and "floor" not in record["metrics"]["frechet_by_class_small/tiny"]
    other = shutil.copytree(place / "fake" / "a", tmp_path / "other" / "c").parent
    assert main(line(place, other, "--real", place / "real", *asked)) == 2
    assert "'c' is none of the classes a, b" in capsys.readouterr().err


def test_a_data_set_and_a_folder(place, finished_run, tmp_path):
    faces = finished_run.parent / "faces"
    record = evaluate(place, place / "fake", "--data", "mug", "--root", faces, out=tmp_path)
    real = record["settings"]["real"]
    assert (real["data"], real["split"], real["clips"]) == ("mug", "test", 14)
    assert real["settings"]["size"] == [SIDE, SIDE] and real["filter"].startswith("letterbox")
    near = record["study"]["neighbours"]
    assert (near["split"], near["training_clips"], near["reference_is"]) == ("train", 21, "held-out real clips")
    again = evaluate(place, place / "fake", "--data", finished_run.parent / "lfdm_faces.yaml", out=tmp_path)
    assert again["metrics"] == record["metrics"]
    train = evaluate(place, place / "fake", "--data", "MUG", "--root", faces, "--split", "train", out=tmp_path)
    assert train["settings"]["real"]["clips"] == 21 and "split test, these are train" in train["note"]
    wide = evaluate(
        place, place / "fake", "--data", "mug", "--root", faces, "--data-option", "resize=stretch", out=tmp_path
    )
    assert wide["settings"]["real"]["filter"].startswith("stretch")


def errors(place, capsys, *arguments):
    assert main(line(place, *arguments)) == 2
    return capsys.readouterr().err


def test_mistakes(place, finished_run, tmp_path, capsys):
    def error(*arguments):
        return errors(place, capsys, *arguments)

    real = ("--real", place / "real")
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in error(tmp_path / "empty", *real)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").touch()
    assert "no video in it" in error(tmp_path / "text", *real)
    write_video(tmp_path / "one" / "only.mp4", moving_clips(1, FRAMES, SIDE)[0], 8, upscale_to=0)
    assert "one video only in the generated set" in error(tmp_path / "one", *real)
    assert "one video only" in error(tmp_path / "one" / "only.mp4", *real)
    assert "one video only in the real set" in error(place / "fake", "--real", tmp_path / "one")
    for number, clip in enumerate(moving_clips(2, FRAMES, 16)):
        write_video(tmp_path / "small" / f"{number}.mp4", clip, 8, upscale_to=0)
        write_video(tmp_path / "short" / f"{number}.mp4", moving_clips(1, 3, SIDE)[0], 8, upscale_to=0)
    message = error(tmp_path / "small", *real)
    assert "32x32" in message and "16x16" in message and "hint" in message
    assert f"has 3 frames, and tiny+n_fake=2 takes {FRAMES}" in error(tmp_path / "short", *real, "--clips", 2)
    assert "no real video has" in error(place / "fake", "--real", tmp_path / "short", "--change", "short=discard")
    assert "did you mean 'stylegan_v_16'" in error(place / "fake", *real, "--protocol", "stylegan_v16")
    assert "did you mean 'fvd'" in error(place / "fake", *real, "--metrics", "fdv")
    assert "no data set 'mugg'" in error(place / "fake", "--data", "mugg", "--root", tmp_path)
    assert "exclude each other" in error(place / "fake", *real, "--data", "mug")
    assert "nothing real to compare with" in error(place / "fake")
    assert "no detector 'i4d'" in error(place / "fake", *real, "--detector", "i4d=random")
    assert "no metric of this evaluation reads c3d" in error(place / "fake", *real, "--detector", "c3d=random")
    assert "no such folder of videos" in error(place / "fake", "--real", tmp_path / "nowhere")
    assert "does not generate clips" in error(finished_run, "--stage", "autoencoder")
    assert "no parameter 'n_frame'" in error(place / "fake", *real, "--change", "n_frame=3")
    assert "needs the subjects" in error(place / "fake", *real, "--metrics", "sfvd")
    assert main(["evaluate", str(place / "fake"), "--real", str(place / "real")]) == 2
    assert "which protocol?" in capsys.readouterr().err


def test_a_missing_network_is_no_random_one(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VGEN_DETECTORS", str(tmp_path))
    arguments = ["evaluate", place / "fake", "--real", place / "real", "--protocol", place / "tiny.yaml"]
    assert main([*map(str, arguments), "--cache", "none"]) == 2
    assert "i3d_pretrained_400.pt" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole(place, finished_run, tmp_path_factory):
    """An evaluation of the checkpoint that nothing interrupted, with its clips."""
    out = tmp_path_factory.mktemp("whole")
    return out, evaluate(place, finished_run, "--keep-samples", out=out, name="run")


def stored(out):
    """Bytes of the clips by number."""
    return {path.name: path.read_bytes() for path in out.glob("run/samples-*/*.safetensors")}


def test_a_checkpoint_samples_by_itself(whole, place, finished_run, tmp_path, capsys):
    out, record = whole
    assert record["metrics"]["frechet_small/tiny"]["n"] == 6 and len(stored(out)) == 6
    assert len(list(out.glob("run/samples-*/*.mp4"))) == 6
    made = record["settings"]["generated"]["settings"]
    assert made["model"]["weights"] == "ema" and made["model"]["step"] == 2 and len(made["model"]["sha256"]) == 64
    assert made["conditions"]["split"] == "test" and made["frames"] == FRAMES
    assert record["settings"]["real"]["data"] == "mug" and record["settings"]["real"]["clips"] == 14

    raw = evaluate(place, finished_run, "--weights", "raw", out=tmp_path, name="run")
    assert raw["settings"]["generated"]["settings"]["model"]["weights"] == "raw"
    assert raw["metrics"]["frechet_small/tiny"]["value"] != record["metrics"]["frechet_small/tiny"]["value"]
    assert not list(tmp_path.glob("run/samples-*")), "clips are kept where that is asked for"
    capsys.readouterr()

    # other metrics of the same clips make none anew; those of other options stay apart
    evaluate(place, finished_run, "--metrics", "kvd", "--keep-samples", out=out, name="run")
    assert "6 of 6 clips are there already" in capsys.readouterr().out
    (changed,) = (path for path in [out / "run"] if path.is_dir())
    evaluate(place, finished_run, "--option", "steps=1", "--keep-samples", out=out, name="run")
    assert "clips of other weights or options: not used" in capsys.readouterr().out
    assert len(list(changed.glob("samples-*"))) == 2
    shutil.rmtree(max(changed.glob("samples-*"), key=os.path.getmtime))


def test_kept_clips_and_other_batches_give_the_same_number(whole, place, finished_run, tmp_path):
    record = evaluate(place, finished_run, "--batch", 4, "--workers", 2, out=tmp_path, name="run")
    value, other = (r["metrics"]["frechet_small/tiny"]["value"] for r in (whole[1], record))
    assert other == pytest.approx(value, rel=1e-6)


def comparable(record):
    return json.dumps(record["metrics"]), json.dumps(record["settings"]), json.dumps(record["study"])


def test_a_kill_in_the_middle(whole, place, finished_run, tmp_path, monkeypatch, capfd):
    write = generated.SampleStore.write

    def deadly(store, number, sample):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        write(store, number, sample)

    arguments = line(place, finished_run, "--keep-samples", "--name", "run", out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(generated.SampleStore, "write", deadly)
        killed = Processes(tmp_path / "killed.output", {})
        killed.fork(arguments)
        codes, _ = killed.wait(120)
    assert codes == [-signal.SIGKILL] and not (tmp_path / "run.json").exists()
    assert len(stored(tmp_path)) == 3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/samples-*/000000.safetensors")}
    record = evaluate(place, finished_run, "--keep-samples", out=tmp_path, name="run")
    assert "3 of 6 clips are there already" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was there is not made again"
    assert stored(tmp_path) == stored(whole[0]) and comparable(record) == comparable(whole[1])


def on_two_ranks(folder, arguments):
    """Runs the command on two ranks; returns what they printed."""
    ranks = Processes(folder / "ranks.output", {"TORCHELASTIC_RUN_ID": "test"})
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    meeting |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    for rank in "01":
        ranks.fork(arguments, **meeting, RANK=rank, LOCAL_RANK=rank)
    codes, output = ranks.wait(180)
    assert codes == [0, 0], output
    return output


def test_two_ranks_equal_one(whole, place, finished_run, tmp_path):
    output = on_two_ranks(tmp_path, line(place, finished_run, "--keep-samples", "--name", "run", out=tmp_path))
    assert output.count("written to") == 1 and "4/4 generated clips" in output, "the first rank's share, of six"
    record = json.loads((tmp_path / "run.json").read_text())
    assert stored(tmp_path) == stored(whole[0]) and comparable(record) == comparable(whole[1])


def test_clips_that_are_not_finite(place, tiny_run, tmp_path, capsys):
    file = tiny_run / "diffusion" / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    for state in (content["state_dict"], *(c["shadow"] for c in content["callbacks"].values() if "shadow" in c)):
        for key, value in state.items():
            if key.startswith("denoiser.") and value.is_floating_point():
                value.fill_(float("nan"))
    torch.save(content, file)
    message = errors(place, capsys, tiny_run)
    assert "frame 0 is not finite" in message and "generated clip 0" in message


@pytest.fixture(scope="module")
def mirror(place):
    """A protocol of reconstructions."""
    asked = {"n_frames": FRAMES, "n_real": 6, "made": "reconstructions", "split": "test", "short": "repeat_last"}
    path = place / "mirror.yaml"
    path.write_text(yaml.safe_dump({**asked, "start_policy": "first", "metrics": ["rfvd", "psnr/clip"]}))
    return path


def reconstruct(place, mirror, run, *arguments, out):
    """Runs the command; returns the record."""
    assert main(line(place, run, "--protocol", mirror, *arguments, out=out)) == 0
    (found,) = out.glob("*.json")
    return json.loads(found.read_text())


def test_reconstructions_of_held_out_clips(place, mirror, finished_run, tmp_path, monkeypatch, capsys):
    record = reconstruct(place, mirror, finished_run, "--keep-samples", out=tmp_path)
    assert set(record["metrics"]) == {"frechet_reconstruction_small/mirror", "psnr/clip/mirror"}
    assert "6/6 reconstructed clips" in capsys.readouterr().out and "study" not in record
    assert "trained on clips" not in record["note"]
    assert record["settings"]["generated"]["settings"]["reconstructed"]["split"] == "test"
    (entry,) = (e for key, e in record["metrics"].items() if key.startswith("psnr"))
    assert entry["n"] == 6 and entry["low"] < entry["value"] < entry["high"]
    assert "Reconstructed" in (tmp_path / "mirror.html").read_text()

    # the number is what the model itself says
    trained = open_trained(argparse.Namespace(run=str(finished_run), stage=None, weights="auto", device="cpu"))
    data = DataBlock(stage_config(trained.file)["data"], "").build((SIDE, SIDE), FRAMES)
    clips = RecordClips.of(data.whole_clips("test"))
    chosen = Selection(clips, load_protocol(mirror)).real()
    real = torch.stack([clips.clip(c.video, c.frames) for c in chosen])
    with torch.no_grad():
        made = to_uint8(trained.model.reconstruct({"video": to_float(real)}))
    distances = ((made.double() - real.double()) / 255).square().flatten(1).mean(1)
    assert entry["value"] == pytest.approx(float((-10 * distances.log10()).mean()), rel=1e-4)

    # after a kill, the missing ones are made, here by two ranks; another part of the data is another protocol
    store = next((tmp_path / "mirror").glob("samples-*"))
    os.unlink(store / "000004.safetensors")
    output = on_two_ranks(tmp_path, line(place, finished_run, "--protocol", mirror, "--keep-samples", out=tmp_path))
    assert "5 of 6 clips are there already" in output
    assert json.loads((tmp_path / "mirror.json").read_text())["metrics"] == record["metrics"]
    train = reconstruct(place, mirror, finished_run, "--change", "split=train", "--clips", 4, out=tmp_path / "train")
    assert set(train["metrics"]) == {key.replace("mirror", "mirror+split=train+n_real=4") for key in record["metrics"]}

    # the newest stage that reconstructs is taken, and one that does not is said to be none
    monkeypatch.setattr(vgen.video, "Reconstructs", LatentFlowAutoencoder)  # as if LFDM did not
    first = reconstruct(place, mirror, finished_run, out=tmp_path / "first")
    assert first["settings"]["generated"]["settings"]["model"]["stage"] == "autoencoder"
    asked = ("--protocol", mirror)
    assert "does not reconstruct clips" in errors(place, capsys, finished_run, *asked, "--stage", "diffusion")
    assert "not sampled" in errors(place, capsys, finished_run, *asked, "--option", "steps=2")


def test_a_small_detector_of_the_data_itself(place, finished_run, tmp_path, capsys):
    arguments = ["evaluate", finished_run, "--protocol", place / "tiny.yaml", "--detector", "small", "--clips", 2]
    arguments += ["--classifier-steps", 2, "--cache", "none", "--out", tmp_path, "--training-clips", 0, "--no-floor"]
    assert main(list(map(str, arguments))) == 0
    record = json.loads((tmp_path / "tiny+n_fake=2.json").read_text())
    assert "frechet_small/tiny+n_fake=2" in record["metrics"]
    assert len(list((tmp_path / "classifier").glob("*.safetensors"))) == 1
    assert not list(read_run(finished_run).evaluations)
