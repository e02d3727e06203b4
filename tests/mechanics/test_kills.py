"""SIGKILL at the places where it hurts; `make torture` does the same at random ones, also with an LFDM."""

import pytest

from tests.mechanics.processes import apart
from tests.mechanics.runs import assert_same, rows, run_differences, with_callbacks


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return with_callbacks(tmp_path_factory.mktemp("recipe") / "toy.yaml", "killer.Killer")


@pytest.fixture(scope="module")
def pair(recipe, tmp_path_factory):
    """An uninterrupted run of two ranks."""
    run = tmp_path_factory.mktemp("pair") / "toy"
    codes, output = apart(run, recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    return run


def kill(run, where, recipe, *arguments, **options):
    codes, output = apart(run, *arguments, recipe=recipe, VGEN_KILL=where, **options)
    assert "killer: now" in output and -9 in codes, output
    return codes


# One place of each kind; the stage's second write is at step 4, its validation behind step 5.
PLACES = ["autoencoder:step:5", "diffusion:write:2", "autoencoder:validation:2", "autoencoder:between:1"]


@pytest.mark.parametrize("where", [*PLACES, "diffusion:done:1"])
def test_on_one_rank(finished, recipe, tmp_path, where):
    run = tmp_path / "toy"
    kill(run, f"{where}:rank0", recipe)
    codes, output = apart(run, "--resume", recipe=recipe)
    assert codes == [0], output
    assert_same(finished, run)
    assert_same(finished, run, ["autoencoder"], ["best"])
    assert not list(run.rglob("*.tmp*")), "a file that was being written is left behind"


@pytest.mark.parametrize("phase", ["rename", "renamed"])
def test_around_the_moment_of_a_checkpoint(finished, recipe, tmp_path, phase):
    run = tmp_path / "toy"
    kill(run, f"autoencoder:{phase}:2:rank0", recipe)
    assert apart(run, "--resume", recipe=recipe)[0] == [0]
    # A row of the log is written behind the checkpoint of its step: a kill in between costs the row.
    assert not run_differences(finished, run, lost_rows=int(phase == "renamed"))


@pytest.mark.parametrize("where", ["autoencoder:step:4:rank1", "diffusion:write:1:all"])
def test_on_two_ranks(pair, recipe, tmp_path, where):
    run = tmp_path / "toy"
    codes = kill(run, where, recipe, ranks=2)
    assert 0 not in codes
    codes, output = apart(run, "--resume", recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    assert_same(pair, run)


def test_a_run_that_is_killed_again_and_again(finished, recipe, tmp_path):
    run = tmp_path / "toy"
    for where in ("autoencoder:step:3", "autoencoder:validation:1", "autoencoder:done:1", "diffusion:rename:3"):
        kill(run, f"{where}:rank0", recipe, "--resume")
    assert len([row for row in rows(run, "autoencoder") if row["train/loss"]]) == 7
    assert apart(run, "--resume", recipe=recipe)[0] == [0]
    assert_same(finished, run)
