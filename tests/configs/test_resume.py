"""Real families resume as exactly as the toy: statistics, caches and encoders of theirs included."""

from pathlib import Path

import pytest

from tests.configs.conftest import RECIPES, arguments, configuration, tiny_of
from tests.configs.test_smoke import SHORT, smoke
from tests.mechanics.runs import assert_same
from vgen.cli.main import main

OVERLAY = """
all_stages:
  trainer:
    callbacks:
      - {class_path: vgen.callbacks.Checkpoint, init_args: {every_n_steps: 2}}
      - {class_path: vgen.callbacks.EMA, init_args: {decay: 0.9}}
      - {class_path: tests.mechanics.toy.Trap}
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_stopped_in_every_stage(recipe, here, monkeypatch, tmp_path):
    smoke(recipe)  # data, and what the recipe starts from
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(OVERLAY)
    stages = list(configuration(recipe)["stages"])

    def run(folder, *more):
        line = ["fit", *arguments(recipe, tiny_of(recipe), overlay), *SHORT, "--all_stages.trainer.max_steps=5"]
        return main([*line, "--run_dir", str(folder), *more])

    whole, stopped = Path(tmp_path / "whole"), Path(tmp_path / "stopped")
    assert run(whole) == 0
    for stage in stages:
        monkeypatch.setenv("TOY_TRAP", f"{stage}:3:raise")
        assert run(stopped, "--resume") == 1
    monkeypatch.delenv("TOY_TRAP")
    assert run(stopped, "--resume") == 0
    assert_same(whole, stopped, stages)
