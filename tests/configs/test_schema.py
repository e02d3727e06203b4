"""The schema that editors use: current, true of every recipe and overlay, and strict where a recipe is wrong."""

import copy
import importlib.metadata
import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from tests.configs.conftest import CONFIGS
from vgen.cli.recipe import load_yaml
from vgen.cli.schema import dump, recipe_schema

FILES = sorted(CONFIGS.rglob("*.yaml"))
STORED = CONFIGS / "schema.json"
# Arguments of these come from their signatures: another version may have others.
FOREIGN = ("torch", "lightning")


@pytest.fixture(scope="module")
def schema():
    return recipe_schema()


@pytest.fixture(scope="module")
def validator(schema):
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def pinned():
    lines = (CONFIGS.parent / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_stored_file_is_current(schema):
    if all(importlib.metadata.version(name) == pinned()[name] for name in FOREIGN):
        assert STORED.read_text(encoding="utf-8") == dump(schema), "`make schema` writes it anew"
    stored = json.loads(STORED.read_text(encoding="utf-8"))["definitions"]
    own = {name: part for name, part in schema["definitions"].items() if name.startswith("vgen.")}
    assert {name: stored.get(name) for name in own} == own, "`make schema` writes it anew"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_it_is_true_of(path, validator):
    errors = [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in validator.iter_errors(load_yaml(path))
    ]
    assert not errors
    first = path.read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix) and (path.parent / first.removeprefix(prefix)).resolve() == STORED.resolve()


def changed(recipe, path, value):
    """The recipe with one value replaced or added."""
    recipe = copy.deepcopy(recipe)
    *way, last = path.split("/")
    place = recipe
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return recipe


AUTOENCODER, DIFFUSION = "stages/autoencoder", "stages/diffusion"
WRONG = [
    ("stage", {}),
    (f"{DIFFUSION}/modle", {}),
    ("all_stages/trainer/max_step", 5),
    ("all_stages/trainer/log_every_n_steps", "often"),
    (f"{DIFFUSION}/model/init_arg", {}),
    (f"{DIFFUSION}/model/class_path", "vgen.models.lfdm.LFDMM"),
    (f"{DIFFUSION}/model/init_args/guidence", 2.0),
    (f"{DIFFUSION}/model/init_args/target", "relative"),
    (f"{DIFFUSION}/model/init_args/clip_spec", {}),
    (f"{DIFFUSION}/model/init_args/codec/wieghts", "raw"),
    (f"{DIFFUSION}/model/init_args/denoiser/init_args/dims", 64),
    (f"{DIFFUSION}/model/init_args/diffusion/init_args/schedule", "cosin"),
    (f"{DIFFUSION}/model/init_args/diffusion/init_args/threshold/kid", "dynamic"),
    (f"{DIFFUSION}/model/init_args/sampler/class_path", "vgen.diffusion.DDMP"),
    (f"{DIFFUSION}/model/init_args/conditioner/init_args/modell", "bert-base-cased"),
    (f"{DIFFUSION}/model/init_args/optimizer/init_args/learning_rate", 1e-3),
    (f"{DIFFUSION}/model/init_args/optimizer/class_path", "torch.optim.Adamm"),
    (f"{DIFFUSION}/model/init_args/lr_scheduler/init_args/milestone", [800]),
    (f"{DIFFUSION}/data/class_path", "vgen.data.datamodules.MGU"),
    (f"{DIFFUSION}/data/init_args/batchsize", 5),
    (f"{DIFFUSION}/data/init_args/batch_size", "many"),
    (f"{DIFFUSION}/trainer/callbacks/0/init_args/every_n_step", 5),
    (f"{DIFFUSION}/trainer/callbacks/1/class_path", "vgen.callbacks.SampleLoger"),
    (f"{AUTOENCODER}/model/init_args/network/init_args/generator/flow_predictor/blocks", 5),
    (f"{AUTOENCODER}/model/init_args/image_loss/init_args/scale", [1]),
    (f"{AUTOENCODER}/model/init_args/transform/sigma", 0.1),
    (f"{AUTOENCODER}/init_from", {"paht": "x"}),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_a_mistake_is_found(path, value, validator):
    assert not validator.is_valid(changed(load_yaml(CONFIGS / "lfdm_mug.yaml"), path, value))


@pytest.mark.parametrize(
    "path",
    [
        f"{DIFFUSION}/model/init_args/denoiser/init_args/dims",
        f"{DIFFUSION}/model/init_args/gidance",
        f"{AUTOENCODER}/data/init_args/sizes",
        "all_stages/trainer/acelerator",
    ],
)
def test_a_mistake_in_an_overlay_is_found(path, validator):
    """It names no classes: the mistake fits none of those that the recipe may have named."""
    overlay = load_yaml(CONFIGS / "tiny" / "lfdm_mug.yaml")
    assert validator.is_valid(overlay) and not validator.is_valid(changed(overlay, path, 1))


RIGHT = [
    ("$schema", "schema.json"),
    (f"{DIFFUSION}/model/class_path", "mine.models.Better"),
    (f"{DIFFUSION}/model/class_path", "LFDM"),
    (f"{DIFFUSION}/data/class_path", "MUG"),
    (f"{DIFFUSION}/model/init_args/lr_scheduler", None),
    (f"{DIFFUSION}/trainer/callbacks+", [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]),
    (f"{DIFFUSION}/trainer/callbacks/1", {"class_path": "mine.Callback", "init_args": {"whatever": 1}}),
    (f"{DIFFUSION}/trainer/logger", {"class_path": "WandbLogger", "init_args": {"project": "x", "tags": ["a"]}}),
    (f"{DIFFUSION}/trainer/strategy", "ddp"),
    (f"{AUTOENCODER}/init_from", {"path": "runs/other", "weights": "ema"}),
]


@pytest.mark.parametrize(("path", "value"), RIGHT, ids=lambda x: x if isinstance(x, str) else "")
def test_what_the_parser_takes(path, value, validator):
    recipe = changed(load_yaml(CONFIGS / "lfdm_mug.yaml"), path, value)
    assert not [error.message[:200] for error in validator.iter_errors(recipe)]


def test_it_explains_what_it_offers(schema):
    own = schema["definitions"]["vgen.data.datamodules.MUG"]["properties"]
    assert "clip_spec" not in schema["definitions"]["vgen.models.lfdm.LFDM"]["properties"]
    assert (
        own["batch_size"]["description"] == "Clips per training batch on each rank."
        and own["batch_size"]["default"] == 8
    )
    for name, part in schema["definitions"].items():
        for argument, facts in part.get("properties", {}).items():
            # Texts of other packages stay theirs.
            if not name.startswith(("vgen", "one of", "stage")):
                assert "description" not in facts, (name, argument)


def test_the_command_writes_it(tmp_path, schema):
    from vgen.cli.main import main

    out = tmp_path / "deep" / "schema.json"
    assert main(["schema", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == dump(schema)
    (tmp_path / "file").touch()
    assert main(["schema", "--out", str(Path(tmp_path, "file", "schema.json"))]) == 2
