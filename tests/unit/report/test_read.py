import json
import os
import time

import pytest

from vgen.errors import UserError
from vgen.report.read import RUNNING_SECONDS, read_metrics, read_run


def make_old(folder):
    then = time.time() - 10 * RUNNING_SECONDS
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_finished_run_is_read_whole(run_dir):
    run = read_run(run_dir)
    assert run.state == "finished"
    assert [stage.name for stage in run.stages] == ["autoencoder", "diffusion"]
    stage = run.stages[0]
    assert stage.progress == {"step": 600, "clips": 9600, "seconds": 126.0}
    assert len(stage.series["train/loss"].steps) == 301
    assert len(stage.series["val/loss"].steps) == 13
    assert stage.peak_memory_gb == 1.4
    assert ("generator", 45575391) in stage.parameters
    assert [clip.step for clip in stage.clips] == [200, 400, 600]
    assert stage.clips[0].captions == ("anger", "disgust", "fear")
    assert len(run.generated) == 7
    assert run.evaluations[0].protocol == "held-out subjects, 64x64x16"
    assert run.problems == []


def test_states(run_dir):
    (run_dir / "diffusion" / "done.json").unlink()
    assert read_run(run_dir).state == "running"
    make_old(run_dir)
    run = read_run(run_dir)
    assert [stage.state for stage in run.stages] == ["finished", "interrupted"]
    assert run.state == "interrupted"


def test_time_left(run_dir):
    (run_dir / "diffusion" / "done.json").unlink()
    facts = json.loads((run_dir / "diffusion" / "environment.json").read_text()) | {"planned_steps": 1000}
    (run_dir / "diffusion" / "environment.json").write_text(json.dumps(facts))
    first, second = read_run(run_dir).stages
    assert first.seconds_left is None and second.planned_steps == 1000
    assert second.seconds_left == pytest.approx(400 * 0.21)
    make_old(run_dir)
    assert read_run(run_dir).stages[1].seconds_left is None, "it does not run"


def test_clips_and_seconds_of_every_point(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,clips,seconds,train/loss,val/loss\n10,80,1,3,\n15,,,,5\n20,160,3,2,\n25,,,,4\n")
    series, _ = read_metrics(path, [])
    assert series["train/loss"].clips == [80, 160] and series["train/loss"].seconds == [1, 3]
    assert series["val/loss"].along("clips") == [120, 160] and series["val/loss"].along("seconds") == [2, 3]
    path.write_text("step,train/loss\n10,3\n")
    assert read_metrics(path, [])[0]["train/loss"].along("clips") == []


def test_a_stage_that_has_not_begun_comes_from_the_config(tmp_path):
    (tmp_path / "config.yaml").write_text("stages: {one: {}, two: {}}")
    run = read_run(tmp_path)
    assert [(stage.name, stage.state) for stage in run.stages] == [("one", "not started"), ("two", "not started")]
    assert run.state == "not started"


def test_metrics_with_half_a_row_gaps_and_repeats(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,clips,seconds,train/loss,val/loss\n1,8,0.1,3.0,\n2,16,0.2,nan,5\n2,16,0.3,2.5,\n3,24,0.4,2.\n4,3"
    )
    series, progress = read_metrics(path, [])
    assert series["train/loss"].steps == [1, 2, 3]
    assert series["train/loss"].values == [3.0, 2.5, 2.0]
    assert series["val/loss"].values == [5.0]
    assert progress["step"] == 4


def test_damaged_files_are_named_not_fatal(run_dir):
    (run_dir / "evaluation" / "broken.json").write_text("{")
    (run_dir / "evaluation" / "list.json").write_text("[1]")
    (run_dir / "diffusion" / "config.yaml").write_text("a: [")
    (run_dir / "diffusion" / "environment.json").write_text(json.dumps({"parameters": "many", "git": None}))
    run = read_run(run_dir)
    text = "\n".join(run.problems)
    assert "broken.json" in text and "list.json" in text and "config.yaml" in text
    assert len(run.evaluations) == 1
    assert run.stages[1].parameters == []


def test_randomly_initialised_parts_are_found(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "stages: {a: {model: {init_args: {text: {init_args: {random_init: true}}, p: {random_init: false}}}}}"
    )
    assert read_run(tmp_path).random_parts == ["stages.a.model.init_args.text.init_args"]


def test_no_run_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        read_run(tmp_path)
