"""Every recipe in lightning_configs: parses alone and with its overlays, prints what it reads, says what it is."""

import pytest
import yaml

from tests.configs.conftest import CONFIGS, OVERLAYS, RECIPES, configuration, printed, tiny_of
from vgen.cli.stages import make_plan, run_directory

FIRSTS = list({recipe.stem.partition("_")[0]: recipe for recipe in reversed(RECIPES)}.values())


def named(paths):
    return pytest.mark.parametrize("recipe", paths, ids=lambda path: path.stem)


def raw(path):
    return yaml.safe_load(path.read_text())


def test_there_are_recipes():
    lfdm = {"lfdm_mug", "lfdm_mhad", "lfdm_natops", "lfdm_folder", "lfdm_finetune_decoder"}
    assert lfdm | {"vdm_ucf101", "vdm_sky", "ldm_sky", "ldm_mug"} <= {p.stem for p in RECIPES}


def test_every_recipe_has_a_tiny_overlay_and_no_overlay_is_left_over():
    assert {path.name for path in RECIPES} == {path.name for path in (CONFIGS / "tiny").glob("*.yaml")}


@named(RECIPES)
def test_it_parses_without_its_data(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configuration(recipe)
    assert list(config["stages"]) == list(raw(recipe)["stages"])
    for stage in config["stages"].values():
        assert stage["model"]["class_path"].startswith("vgen.models.")
        assert stage["data"]["class_path"].startswith("vgen.data.datamodules.")
        assert "clip_spec" not in stage["model"]["init_args"]


@named(RECIPES)
def test_its_tiny_overlay_fits(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full, tiny = configuration(recipe), configuration(recipe, tiny_of(recipe))
    assert list(tiny["stages"]) == list(full["stages"])
    for name, stage in tiny["stages"].items():
        trainer, data = stage["trainer"], stage["data"]["init_args"]
        assert stage["model"]["class_path"] == full["stages"][name]["model"]["class_path"]
        assert trainer["accelerator"] == "cpu" and trainer["devices"] == 1, "two CPU cores must do"
        assert 0 < trainer["max_steps"] <= 2000 and data["num_workers"] == 0
        assert data["root"] != full["stages"][name]["data"]["init_args"]["root"], "fake and real data lie apart"
    assert tiny["run_dir"] == f"runs/{recipe.stem}_tiny"


@named(RECIPES)
@pytest.mark.parametrize("tiny", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["alone", "tiny"])
def test_what_it_prints_is_the_same_recipe(recipe, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = printed(capsys, recipe, *([tiny_of(recipe)] if tiny else []))
    path = tmp_path / "printed.yaml"
    path.write_text(yaml.safe_dump(first, sort_keys=False))
    assert printed(capsys, path) == first


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "recipes", [pytest.param(FIRSTS, id="first"), pytest.param(RECIPES, id="every", marks=pytest.mark.slow)]
)
def test_every_overlay_fits_every_recipe(recipes, overlay, tmp_path, monkeypatch):
    """Of each name up to its first `_` one recipe, which is quick; all of them in `make test-all`."""
    monkeypatch.chdir(tmp_path)
    wanted = raw(overlay)["all_stages"]["trainer"]
    for recipe in recipes:
        for stage in configuration(recipe, overlay)["stages"].values():
            for key in wanted.keys() - {"logger", "callbacks+"}:
                assert stage["trainer"][key] == wanted[key], f"{recipe.stem}: {key}"


@named(RECIPES)
def test_it_can_be_planned(recipe, tmp_path):
    """Stages, handoffs and processes agree with each other."""
    config = configuration(recipe)
    plan = make_plan(config, tmp_path / "run")
    assert plan.pending == list(config["stages"]) and not plan.resume


@named(RECIPES)
def test_it_says_what_it_is(recipe):
    header = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    text = " ".join(line.lstrip("# ") for line in header)
    assert f"vgen fit --config lightning_configs/{recipe.name}" in text
    assert any(word in text for word in ("Measured", "measured")), "what has been measured, or that nothing was"
    assert run_directory(raw(recipe), recipe).name == recipe.stem
    assert tiny_of(recipe).read_text().startswith("# ")


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_says_what_it_is_and_fits_any_stage(overlay):
    assert overlay.read_text().startswith("# ")
    assert set(raw(overlay)) == {"all_stages"}
