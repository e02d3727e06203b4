import json
import shutil

import torch
import yaml

from vgen.cli.evaluation import image_to_video as command
from vgen.cli.main import main
from vgen.report.read import read_run

FIGURES = {
    "psnr_gain_mean",
    "psnr_gain_mouth",
    "psnr_gain_eyes",
    "class_accuracy_ceiling",
    "classifier_accuracy_real",
    "classifier_accuracy_first_frame",
    "class_accuracy_generated",
    "motion_energy_ratio",
}


def evaluate(run, *arguments):
    return main(["evaluate", str(run), "--classifier-steps", "3", *(str(a) for a in arguments)])


def test_writes_figures_that_the_report_shows(tiny_run, capsys):
    assert evaluate(tiny_run, "--clips", 16, "--option", "steps=3", "--batch", 6) == 0
    out = capsys.readouterr().out
    assert "psnr_gain_mouth" in out and "95 % interval" in out and "16/16 clips generated" in out
    path = tiny_run / "evaluation" / "image_to_video.json"
    result = json.loads(path.read_text())
    assert set(result) == {"protocol", "metrics", "settings", "note"} and set(result["metrics"]) == FIGURES
    for metric in result["metrics"].values():
        assert set(metric) == {"value", "low", "high", "n", "unit"}
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert result["metrics"]["class_accuracy_generated"]["n"] == 16
    assert result["metrics"]["psnr_gain_mean"]["n"] == 14  # all test clips there are
    settings = result["settings"]
    assert set(settings["seconds"]) == {"reading", "classifier", "reconstruction", "generation", "all"}
    assert settings["options"] == {"steps": "3"} and settings["weights"] == "ema" and settings["step"] == 2
    assert settings["sampler"]["class_path"] == "vgen.diffusion.DDIM"
    assert "reads only" in result["note"]  # three steps teach a classifier nothing, and the reader is told
    (evaluation,) = read_run(tiny_run).evaluations
    assert evaluation.protocol == "image_to_video/compact"

    # the classifier is kept, and the same command gives the same figures
    kept = {p: p.stat().st_mtime_ns for p in (tiny_run / "evaluation" / "classifier").glob("*.safetensors")}
    assert len(kept) == 2
    assert evaluate(tiny_run, "--clips", 16, "--option", "steps=3", "--batch", 6, "--name", "again") == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert json.loads((tiny_run / "evaluation" / "again.json").read_text())["metrics"] == result["metrics"]


def test_fewer_clips_are_drawn_from_all(tiny_run):
    assert evaluate(tiny_run, "--clips", 4, "--classifier-clips", 5, "--weights", "raw") == 0
    settings = json.loads((tiny_run / "evaluation" / "image_to_video.json").read_text())["settings"]
    assert settings["clips_real"] == 4 and settings["weights"] == "raw"
    (record, _) = (json.loads(p.read_text()) for p in (tiny_run / "evaluation" / "classifier").glob("*.json"))
    assert record["clips"] == 5


def test_mistakes(tiny_run, finished_run, tmp_path, capsys):
    def error(*arguments):
        assert evaluate(*arguments) == 2
        return capsys.readouterr().err

    assert "makes no videos from a first frame" in error(tiny_run, "--stage", "autoencoder")
    assert "--data-root" in error(tiny_run, "--data-root", tmp_path / "moved")
    assert "takes 1 to 999 steps" in error(tiny_run, "--clips", 2, "--option", "steps=2000")
    assert "at least 1" in error(tiny_run, "--clips", 0)
    other = tmp_path / "other"
    for name in ("jumping", "waving"):
        for take in ("a", "b"):
            shutil.copytree(finished_run.parent / "faces" / "001" / "anger" / "take000", other / name / take)
    config = tiny_run / "diffusion" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    arguments = {"root": str(other), "size": 32, "frames": 5}
    content["stages"]["diffusion"]["data"] = {"class_path": "vgen.data.datamodules.Folder", "init_args": arguments}
    config.write_text(yaml.safe_dump(content))
    assert "jumping, waving instead of anger" in error(tiny_run)
    arguments["framse"] = 3
    config.write_text(yaml.safe_dump(content))
    assert "did you mean 'frames'?" in error(tiny_run)


def test_a_model_without_classes(tiny_run, capsys):
    file = tiny_run / "diffusion" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["vgen"]["clip_spec"]["class_names"] = []
    checkpoint["vgen"]["init_args"]["conditioner"]["init_args"]["num_classes"] = 7
    torch.save(checkpoint, file)
    assert evaluate(tiny_run) == 2
    assert "trained without" in capsys.readouterr().err


def test_the_table_is_aligned():
    metric = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8, "unit": "share"}
    result = {
        "metrics": {"a": metric, "longer": {**metric, "unit": "dB"}},
        "settings": {"chance": 1 / 7, "subjects": 2, "seconds": {"all": 1.5}},
    }
    head, first, second, _, last = command.table(result)
    assert head.index("95 %") == first.index("0.250") == second.index("0.250")
    assert "0.500 dB" in second and "chance 0.143" in last and "all 1.5" in last
