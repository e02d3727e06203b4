"""The plan of a run, decided from what lies in its directory."""

import json

import pytest

from vgen.cli.stages import (
    Plan,
    begun_by,
    changed_keys,
    inherited_plan,
    make_plan,
    recipe_of_run,
    resolve_handoffs,
    run_directory,
    write_done,
)
from vgen.errors import UserError

HANDOFF = {"codec": {"path": "stage://a/last"}}


@pytest.fixture
def config():
    return {
        "stages": {
            "a": {"trainer": {"max_steps": 3}, "model": {}},
            "b": {"trainer": {"max_steps": 3}, "model": {"init_args": HANDOFF}},
        }
    }


@pytest.fixture
def leave(tmp_path, config):
    """Leaves a stage behind: trained to the end, or interrupted."""

    def stage(name, done=True, content=b"weights"):
        folder = tmp_path / name / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").write_bytes(content)
        if done:
            write_done(tmp_path / name, config["stages"][name], 3, 6, 1.0)

    return stage


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("VGEN_PLAN", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_a_new_run(config, tmp_path):
    plan = make_plan(config, tmp_path / "new")
    assert (plan.stages, plan.pending, plan.resume, plan.delete) == (["a", "b"], ["a", "b"], [], [])
    assert not (tmp_path / "new").exists()


def test_hidden_files_do_not_count(config, tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert make_plan(config, tmp_path).pending == ["a", "b"]


def test_interrupted_stages_are_resumed(config, tmp_path, leave):
    leave("a")
    leave("b", done=False)
    plan = make_plan(config, tmp_path, resume=True)
    assert plan.pending == ["b"] and plan.resume == ["b"]


def test_other_limits_make_a_stage_pending_again(config, tmp_path, leave):
    leave("a")
    leave("b")
    assert make_plan(config, tmp_path, resume=True).pending == []
    config["stages"]["b"]["trainer"]["max_steps"] = 4
    assert make_plan(config, tmp_path, resume=True).resume == ["b"]
    config["stages"]["b"]["trainer"] |= {"max_steps": 3, "log_every_n_steps": 7}
    assert make_plan(config, tmp_path, resume=True).pending == []


def test_a_stage_whose_first_stage_has_changed(config, tmp_path, leave):
    leave("a")
    leave("b")
    leave("a", content=b"other weights")
    with pytest.raises(UserError, match="trained on another 'a'"):
        make_plan(config, tmp_path, resume=True)
    assert make_plan(config, tmp_path, only="b", overwrite=True).pending == ["b"]


def test_a_record_of_an_older_version_is_believed(config, tmp_path, leave):
    leave("a")
    leave("b")
    record = tmp_path / "b" / "done.json"
    facts = json.loads(record.read_text())
    del facts["inputs"]
    record.write_text(json.dumps(facts))
    assert make_plan(config, tmp_path, resume=True).pending == []


def test_overwrite_deletes_late_and_only_its_own(config, tmp_path, leave):
    leave("a")
    leave("b")
    for name in ("report.html", "config.yaml", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "evaluation").mkdir()
    plan = make_plan(config, tmp_path, overwrite=True)
    assert plan.pending == ["a", "b"] and plan.resume == [] and (tmp_path / "a" / "done.json").is_file()
    plan.make_room()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"] and plan.delete == []
    plan.make_room()


def test_overwrite_of_one_stage(config, tmp_path, leave):
    leave("a")
    leave("b")
    (tmp_path / "report.html").touch()
    plan = make_plan(config, tmp_path, only="b", overwrite=True)
    plan.make_room()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "report.html"]


def test_what_is_refused(config, tmp_path, leave):
    leave("a")
    for options, what in (
        ({}, "not empty"),
        ({"only": "a"}, "not empty"),
        ({"only": "c"}, "unknown stage 'c'"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ):
        with pytest.raises(UserError, match=what):
            make_plan(config, tmp_path, **options)
    with pytest.raises(UserError, match="needs stage 'a'"):
        make_plan(config, tmp_path / "new", only="b")


@pytest.mark.parametrize("first, second", [(1, "1"), ("auto", "auto"), ([0, 1], 2), (-1, "-1"), (2, [1, 3])])
def test_equal_numbers_of_processes(config, tmp_path, first, second):
    for stage, devices in (("a", first), ("b", second)):
        config["stages"][stage]["trainer"]["devices"] = devices
    assert make_plan(config, tmp_path).pending == ["a", "b"]


@pytest.mark.parametrize("key, value", [("devices", 2), ("devices", [0, 1]), ("num_nodes", 2), ("accelerator", "gpu")])
def test_different_numbers_of_processes(config, tmp_path, key, value, leave):
    config["stages"]["a"]["trainer"]["devices"] = 1
    config["stages"]["b"]["trainer"] |= {"devices": 1, key: value}
    with pytest.raises(UserError, match=f"differ in their processes.*{key}") as error:
        make_plan(config, tmp_path / "new")
    assert "--only a, then --only b" in str(error.value)
    leave("a")
    assert make_plan(config, tmp_path, resume=True).pending == ["b"]  # a finished stage needs no processes


def test_handoffs_become_paths(config, tmp_path, leave):
    leave("a")
    value = {"x": [{"path": "stage://a/last"}, "runs/a", 3], "y": None}
    path = str(tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert resolve_handoffs(value, ["a", "b"], "b", tmp_path) == {"x": [{"path": path}, "runs/a", 3], "y": None}


@pytest.mark.parametrize(
    "value, what, where",
    [
        ("stage://c/last", "unknown stage", "stages.b.model[0].path"),
        ("stage://b/last", "not trained before", "stages.b.model[0].path"),
        ("stage://a/newest", "must end in /last or /best", "stages.b.model[0].path"),
        ("stage://a", "must end in /last or /best", "stages.b.model[0].path"),
        ("stage://a/best", "is not there", "best.ckpt"),
    ],
)
def test_handoffs_that_cannot_be(tmp_path, leave, value, what, where):
    leave("a")
    with pytest.raises(UserError, match=what) as error:
        resolve_handoffs({"model": [{"path": value}]}, ["a", "b"], "b", tmp_path)
    assert error.value.where.endswith(where)


def test_run_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_directory({"run_dir": "runs/x"}, tmp_path / "r.yaml") == tmp_path / "runs" / "x"
    assert run_directory({}, tmp_path / "r.yaml") == tmp_path / "runs" / "r"


def test_other_processes_inherit_the_plan(tmp_path, monkeypatch):
    plan = Plan(str(tmp_path), ["a", "b"], ["a", "b"], ["a"])
    assert inherited_plan() is None
    plan.publish()
    assert inherited_plan() is None  # the first process decides anew
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert inherited_plan() == plan
    monkeypatch.delenv("LOCAL_RANK")
    plan.finished("a")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert inherited_plan() == plan and plan.pending == ["b"] and plan.resume == []


def test_a_trial_run_has_no_checkpoint_to_hand_over(config, tmp_path, leave):
    config["stages"]["a"]["trainer"]["fast_dev_run"] = config["stages"]["b"]["trainer"]["fast_dev_run"] = True
    with pytest.raises(UserError, match="fast_dev_run writes none") as error:
        make_plan(config, tmp_path / "new")
    assert "max_steps=1" in (error.value.hint or "")
    assert make_plan(config, tmp_path / "new", only="a").pending == ["a"]
    leave("a")
    assert make_plan(config, tmp_path, only="b").pending == ["b"]


def test_changed_keys():
    recorded = {"model": {"dim": 4, "loss": {"kind": "l1"}}, "trainer": {"callbacks": [1], "max_steps": 3}}
    assert changed_keys(recorded, recorded) == []
    wanted = {"model": {"dim": 5, "loss": {"kind": "l1"}, "new": 1}, "trainer": {"callbacks": [2], "max_steps": 3}}
    assert changed_keys(recorded, wanted) == ["model.dim", "trainer.callbacks"]
    assert changed_keys({"model": {"dim": 4}}, {"model": None}) == ["model"]


def test_the_runs_recipe_keeps_what_was_trained(config, tmp_path, leave):
    leave("a")
    old, new = {"stages": {"a": {"x": 1}, "b": {"x": 1}}}, {"run_dir": "r", "stages": {"a": {"x": 2}, "b": {"x": 2}}}
    plan = Plan(str(tmp_path), ["a", "b"], ["b"], [])
    assert recipe_of_run(plan, new) == new  # nothing was recorded
    (tmp_path / "config.yaml").write_text(json.dumps(old))
    assert recipe_of_run(plan, new) == {"run_dir": "r", "stages": {"a": {"x": 1}, "b": {"x": 2}}}
    plan.pending = ["a", "b"]
    assert recipe_of_run(plan, new) == new


def test_whose_run_it_is(tmp_path):
    plan = Plan(str(tmp_path), ["a"], ["a"], [], launch="slurm 7")
    assert not begun_by("slurm 7", tmp_path)
    plan.make_room()
    assert begun_by("slurm 7", tmp_path) and not begun_by("slurm 8", tmp_path) and not begun_by(None, tmp_path)
    assert Plan.from_json(plan.to_json()) == plan
