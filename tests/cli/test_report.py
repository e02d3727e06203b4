import argparse

import pytest

from vgen.cli.commands import report
from vgen.errors import UserError


def call(*arguments):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.run(parser.parse_args([str(argument) for argument in arguments]))


def test_writes_into_the_run_and_names_the_file(run_dir, capsys):
    assert call(run_dir) == 0
    assert str(run_dir / "report.html") in capsys.readouterr().out
    assert (run_dir / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_out(run_dir, tmp_path):
    assert call(run_dir, run_dir, "--out", tmp_path / "two.html") == 0
    assert (tmp_path / "two.html").is_file() and not (run_dir / "report.html").exists()


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        call(tmp_path / "nothing")
