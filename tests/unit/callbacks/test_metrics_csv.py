"""One CSV file per stage, over kills and resumes."""

import csv

import pytest

from vgen.callbacks import MetricsCSV


def read(path):
    with open(path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def log(folder, *rows):
    logger = MetricsCSV(str(folder))
    for step, values in rows:
        logger.log_metrics(values, step - 1)  # Lightning counts the step under way from zero
    return logger


def test_rows_and_columns(tmp_path):
    log(tmp_path, (1, {"train/loss": 0.5, "clips": 4.0, "epoch": 0.0}), (2, {"train/loss": 1 / 3, "clips": 8.0}))
    rows = read(tmp_path)
    assert list(rows[0])[:3] == ["step", "clips", "seconds"] and "epoch" not in rows[0]
    assert [(r["step"], r["clips"], r["train/loss"]) for r in rows] == [("1", "4", "0.5"), ("2", "8", "0.3333333")]
    assert all(float(r["seconds"]) >= 0 for r in rows)


def test_a_new_metric_leaves_empty_cells_before(tmp_path):
    log(tmp_path, (1, {"train/loss": 1.0}), (2, {"val/loss": 2.0}), (3, {"train/loss": 3.0}))
    rows = read(tmp_path)
    assert [r["val/loss"] for r in rows] == ["", "2", ""] and [r["train/loss"] for r in rows] == ["1", "", "3"]


def test_a_resumed_run_drops_what_it_repeats(tmp_path):
    log(tmp_path, *((step, {"train/loss": float(step)}) for step in range(1, 8)))
    log(tmp_path, (5, {"train/loss": 50.0}), (6, {"train/loss": 60.0}))
    assert [r["train/loss"] for r in read(tmp_path)] == ["1", "2", "3", "4", "50", "60"]


def test_several_rows_of_one_step(tmp_path):
    log(tmp_path, (1, {"train/loss": 1.0}), (1, {"val/loss": 2.0}), (2, {"train/loss": 3.0}))
    assert [r["step"] for r in read(tmp_path)] == ["1", "1", "2"]
    log(tmp_path, (2, {"train/loss": 4.0}))
    assert [(r["step"], r["train/loss"]) for r in read(tmp_path)] == [("1", "1"), ("1", ""), ("2", "4")]


def test_a_run_that_goes_on_with_a_validation(tmp_path):
    """Its checkpoint is from before the validation: the row of that step's training stays, the other is repeated."""
    log(tmp_path, (1, {"train/loss": 1.0}), (1, {"val/loss": 2.0}), (2, {"train/loss": 3.0}))
    log(tmp_path, (1, {"val/loss": 5.0}))
    assert [(r["step"], r["train/loss"], r["val/loss"]) for r in read(tmp_path)] == [("1", "1", ""), ("1", "", "5")]


@pytest.mark.parametrize("end", ["1", "3,12", "3,12,0.1,0.", "\x00\x00", "junk"])
def test_a_torn_last_line_is_dropped_or_repeated(tmp_path, end):
    """A kill in the middle of a write."""
    log(tmp_path, *((step, {"train/loss": float(step)}) for step in (1, 2)))
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write(end)
    log(tmp_path, (3, {"train/loss": 3.0}))
    assert [(r["step"], r["train/loss"]) for r in read(tmp_path)] == [("1", "1"), ("2", "2"), ("3", "3")]


def test_an_empty_file_is_begun_anew(tmp_path):
    (tmp_path / "metrics.csv").touch()
    log(tmp_path, (1, {"train/loss": 1.0}))
    assert [r["step"] for r in read(tmp_path)] == ["1"]


def test_seconds_go_on(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,clips,seconds,train/loss\n1,4,100.50,1\n2,8,200.25,1\n")
    log(tmp_path, (3, {"train/loss": 1.0}))
    assert 200.25 <= float(read(tmp_path)[-1]["seconds"]) < 230
    log(tmp_path, (2, {"train/loss": 1.0}))
    assert 100.5 <= float(read(tmp_path)[-1]["seconds"]) < 130


def test_columns_of_an_earlier_run_stay(tmp_path):
    log(tmp_path, (1, {"train/loss": 1.0, "old": 2.0}))
    log(tmp_path, (2, {"train/loss": 1.0}))
    assert [r["old"] for r in read(tmp_path)] == ["2", ""]


def test_nothing_is_written_before_there_is_something(tmp_path):
    MetricsCSV(str(tmp_path)).log_hyperparams({"a": 1})
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_written(tmp_path):
    log(tmp_path, (1, {"train/loss": float("nan")}), (2, {"train/loss": float("inf")}))
    assert [r["train/loss"] for r in read(tmp_path)] == ["nan", "inf"]
