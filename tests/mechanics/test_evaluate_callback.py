"""`Evaluate` in a recipe, on two ranks: one record, and a training that does not notice."""

import json

import pytest

from tests.mechanics.processes import apart
from tests.mechanics.runs import RECIPE, rows, run_differences
from tests.tiny_detector import write_classifier


@pytest.fixture
def recipe(tmp_path):
    """The toy recipe with an evaluation every three steps."""
    (tmp_path / "toy_set.yaml").write_text("n_frames: 2\nn_real: 6\nn_fake: 5\nmetrics: [fvd]\n")
    detectors = {"i3d": write_classifier(tmp_path, side=8, frames=2)}
    arguments = {"protocol": str(tmp_path / "toy_set.yaml"), "every_n_steps": 3, "detectors": detectors, "batch": 2}
    added = json.dumps({"class_path": "vgen.callbacks.Evaluate", "init_args": {**arguments, "cache": None}})
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.read_text().replace("        - {class_path: tests.mechanics.toy.Trap}\n", f"        - {added}\n")
    )
    return path


def test_two_ranks(recipe, tmp_path):
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    codes, output = apart(plain, ranks=2)
    assert codes == [0, 0], output
    codes, output = apart(measured, recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    assert not list((measured / "autoencoder").glob("evaluation")), "it generates no clips"
    found = [each for each in run_differences(plain, measured) if "metrics.csv" not in each]
    assert not found, found
    folder = measured / "diffusion" / "evaluation" / "toy_set"
    assert sorted(path.name for path in folder.iterdir()) == [f"step_0000000{step}.json" for step in (3, 6, 7)]
    records = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    values = [record["metrics"]["frechet_small/toy_set"] for record in records]
    assert [value["n"] for value in values] == [5] * 3 and len({value["value"] for value in values}) == 3
    logged = {row["step"]: float(x) for row in rows(measured) if (x := row.get("frechet_small/toy_set"))}
    expected = {step: value["value"] for step, value in zip("367", values, strict=True)}
    assert logged == pytest.approx(expected, rel=1e-6)
