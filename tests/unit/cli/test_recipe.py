"""Reading recipes: what files and command lines become before the parser sees them."""

import json

import pytest
import yaml

from vgen.cli.recipe import CommandLine, load_yaml, merge, read_command_line
from vgen.errors import UserError

STAGE = {"model": {"class_path": "M"}, "data": {"class_path": "D"}}


@pytest.fixture
def write(tmp_path):
    def save(content, name="recipe.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return save


@pytest.fixture
def recipe(write):
    return write({"run_dir": "runs/x", "stages": {"a": STAGE, "b": STAGE}})


def read(*args, command="fit") -> CommandLine:
    return read_command_line(command, list(args))


def configs(line):
    return [json.loads(line.arguments[i + 1]) for i, arg in enumerate(line.arguments) if arg == "--config"]


@pytest.mark.parametrize(
    "base, over, result",
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": [1]}, {"a+": [2, 3]}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"a+": 2}, {"a": [1, 2]}),
        ({"a": 1}, {"a+": [2]}, {"a": [1, 2]}),
        ({}, {"a+": [2]}, {"a+": [2]}),
        ({"a+": [1]}, {"a+": [2]}, {"a+": [1, 2]}),
        ({"a+": [1]}, {"a": [2]}, {"a": [2, 1]}),
        ({"a+": 1}, {"a": 2}, {"a": [2, 1]}),
    ],
)
def test_merge(base, over, result):
    assert merge(base, over) == result


def test_merge_changes_neither_side():
    base, over = {"a": {"b": [1]}}, {"a": {"b+": [2]}}
    merge(base, over)
    assert base == {"a": {"b": [1]}} and over == {"a": {"b+": [2]}}


@pytest.mark.parametrize(
    "text, value",
    [("2e-4", 2e-4), ("2.0e-4", 2e-4), ("1e3", 1000.0), ("5", 5), (".5", 0.5), ("1.", 1.0), ("-.inf", float("-inf"))],
)
def test_numbers_are_read_as_the_parser_reads_them(write, text, value):
    found = load_yaml_text(write, f"a: {text}")["a"]
    assert found == value and type(found) is type(value)


def load_yaml_text(write, text):
    from pathlib import Path

    return load_yaml(Path(write(text)))


@pytest.mark.parametrize("text", ["1e", "e5", "1.2.3", "yes-no", "0x", "2e-4m"])
def test_words_stay_words(write, text):
    assert load_yaml_text(write, f"a: {text}")["a"] == text


def test_anchors_work_within_a_file(write):
    content = load_yaml_text(write, "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n")
    assert content["c"] == {"b": 1, "d": 2}


def test_stage_names_in_their_order(write):
    line = read("--config", write({"stages": {"z": STAGE, "a": STAGE, "m": STAGE}}))
    assert line.stage_names == ["z", "a", "m"] and line.command == "fit"


def test_all_stages_lies_below_the_stage(write):
    path = write(
        {
            "all_stages": {"trainer": {"max_steps": 1, "devices": 2}},
            "stages": {"a": {**STAGE, "trainer": {"devices": 3}}},
        }
    )
    assert configs(read("--config", path))[0]["stages"]["a"]["trainer"] == {"max_steps": 1, "devices": 3}


def test_an_overlay_reaches_every_stage(recipe, write):
    overlay = write({"all_stages": {"trainer": {"devices": 2}}}, "overlay.yaml")
    line = read("--config", recipe, "--config", overlay)
    assert configs(line)[1] == {"stages": {n: {"trainer": {"devices": 2}} for n in ("a", "b")}}


def test_an_overlay_of_one_stage_leaves_the_other(recipe, write):
    overlay = write({"stages": {"b": {"seed_everything": 1}}}, "overlay.yaml")
    assert configs(read("--config", recipe, "--config", overlay))[1] == {"stages": {"b": {"seed_everything": 1}}}


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"], ["-c", "{}"]])
def test_forms_of_config(recipe, form):
    line = read(*[part.format(recipe) for part in form])
    assert line.stage_names == ["a", "b"] and str(line.config_paths[0]) == recipe


def test_schema_and_run_dir(write):
    line = read("--config", write({"$schema": "x.json", "run_dir": "runs/y", "stages": {"a": STAGE}}))
    assert configs(line)[0] == {"run_dir": "runs/y", "stages": {"a": STAGE}}


@pytest.mark.parametrize("form", [["--all_stages.trainer.max_steps=3"], ["--all_stages.trainer.max_steps", "3"]])
def test_overrides_of_all_stages(recipe, form):
    line = read("--config", recipe, *form)
    assert line.arguments[2:] == ["--stages.a.trainer.max_steps=3", "--stages.b.trainer.max_steps=3"]


def test_order_of_files_and_overrides_is_kept(recipe, write):
    overlay = write({"all_stages": {"seed_everything": 1}}, "overlay.yaml")
    line = read("--config", recipe, "--stages.a.seed_everything=5", "--config", overlay)
    assert line.arguments[2] == "--stages.a.seed_everything=5" and line.arguments[3] == "--config"


@pytest.mark.parametrize(
    "args, options",
    [
        ([], {"resume": False, "overwrite": False, "only": None}),
        (["--resume"], {"resume": True, "overwrite": False, "only": None}),
        (["--only", "a"], {"resume": False, "overwrite": False, "only": "a"}),
        (["--only=b", "--overwrite"], {"resume": False, "overwrite": True, "only": "b"}),
    ],
)
def test_options_of_the_run(recipe, args, options):
    line = read("--config", recipe, *args)
    assert line.options == options and len(line.arguments) == 2


def test_options_of_evaluation(recipe):
    assert read("--config", recipe, "--stage", "a", command="test").options == {"stage": "a"}
    assert read("--config", recipe, "--resume", command="test").arguments[-1] == "--resume"  # the parser refuses it


@pytest.mark.parametrize(
    "content, args, what",
    [
        ({"stages": {"a": STAGE}, "stage": {}}, [], "unknown key 'stage'"),
        ({"stages": {"a": {**STAGE, "modle": {}}}}, [], "unknown key 'modle'"),
        ({"stages": {"a": STAGE}, "all_stages": {"trainr": {}}}, [], "unknown key 'trainr'"),
        ({"stages": {}}, [], "must be a recipe"),
        ({"stages": ["a"]}, [], "must be a recipe"),
        ({"stages": {"a": 3}}, [], "map each stage"),
        ({"stages": {"a": {"model": STAGE["model"]}}}, [], "names no data class"),
        ({"stages": {"a": STAGE}}, ["--stages.b.x=1"], "unknown stage 'b'"),
        ({"stages": {"a": STAGE}}, ["--all_stages.x"], "needs a value"),
        ({"stages": {"a": STAGE}}, ["--config"], "--config needs a file"),
        ({"stages": {"a": STAGE}}, ["--only"], "--only needs"),
    ],
)
def test_mistakes(write, content, args, what):
    with pytest.raises(UserError, match=what):
        read("--config", write(content), *args)


def test_a_class_may_be_written_short(write):
    assert read("--config", write({"stages": {"a": {"model": "M", "data": "D"}}})).stage_names == ["a"]


def test_the_classes_may_come_from_an_overlay(write):
    recipe = write({"stages": {"a": {"data": {"class_path": "D"}}}})
    overlay = write({"stages": {"a": {"model": {"class_path": "M"}}}}, "overlay.yaml")
    assert read("--config", recipe, "--config", overlay).stage_names == ["a"]
