"""A run that predicts behind past frames: sampled from past frames of its data, and measured by its best draws."""

import json
from pathlib import Path

import pytest

from tests.tiny_data import TINY
from vgen.cli.main import main
from vgen.video.io import probe

CONFIGS = Path(__file__).parents[2] / "lightning_configs"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with fake data and a run of three steps."""
    folder = tmp_path_factory.mktemp("svg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        TINY["MovingMNIST"](Path("data/fake_mnist"))
        configs = [CONFIGS / "svg_lp_moving_mnist.yaml", CONFIGS / "tiny" / "svg_lp_moving_mnist.yaml"]
        words = [word for config in configs for word in ("--config", str(config))]
        short = ["--all_stages.trainer.max_steps=3", "--all_stages.data.batch_size=2", "--all_stages.data.val_clips=2"]
        assert main(["fit", *words, *short, "--run_dir", "run", "--all_stages.trainer.limit_val_batches=0"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def test_sampled_behind_past_frames_of_the_data(capsys):
    assert main(["sample", "run", "--from-data", "2", "--n", "2", "--frames", "13", "--out", "made"]) == 0
    clips = sorted(path for path in Path("made").glob("*.mp4") if path.stem != "grid")
    assert len(clips) == 4 and all(probe(path).frames == 13 for path in clips)
    assert Path("made/grid.mp4").is_file()
    assert main(["sample", "run", "--image", "face.png"]) == 2
    assert "goes on behind 3 frames" in capsys.readouterr().err


def test_best_of(capsys):
    line = ["evaluate", "run", "--best-of", "3", "--clips", "4", "--frames", "12", "--batch", "2"]
    assert main(line) == 0
    assert "ssim_best_of_3" in capsys.readouterr().out
    record = json.loads(Path("run/evaluation/best_of_3.json").read_text())
    figures, curves = record["metrics"], record["curves"]
    assert set(figures) == {
        f"{score}_{what}" for score in ("ssim", "psnr") for what in ("best_of_3", "of_a_draw", "last_frame_copied")
    }
    assert figures["psnr_best_of_3"]["value"] >= figures["psnr_of_a_draw"]["value"]
    assert figures["psnr_best_of_3"]["n"] == 4 and record["settings"]["past_frames"] == 3
    assert curves["first_frame"] == 3 and len(curves["ssim"]["best"]) == 9
    assert Path("run/evaluation/best_of_3.png").is_file()
    # on batches of another size, the same
    assert main([*line[:-1], "4", "--name", "again"]) == 0
    again = json.loads(Path("run/evaluation/again.json").read_text())["metrics"]
    for name, figure in figures.items():
        assert again[name]["value"] == pytest.approx(figure["value"], rel=1e-4)


def test_refused(capsys):
    assert main(["evaluate", "run", "--best-of", "0"]) == 2
    assert main(["evaluate", "run", "--best-of", "2", "--frames", "3"]) == 2
    assert "leave nothing to predict" in capsys.readouterr().err
    assert main(["evaluate", "run", "--best-of", "2", "--protocol", "pvdm"]) == 2
