"""Other published sizes of a recipe: small files that are stacked on it."""

import pytest

from tests.configs.conftest import CONFIGS, RECIPES, configuration
from tests.configs.test_recipes import raw

VARIANTS = sorted((CONFIGS / "variants").glob("*.yaml"))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda path: path.stem)
def test_it_fits_every_recipe_of_its_family(variant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    family = variant.stem.partition("_")[0]
    recipes = [recipe for recipe in RECIPES if recipe.stem.startswith(f"{family}_")]
    assert recipes and variant.read_text().startswith("# ")
    for recipe in recipes:
        plain, changed = configuration(recipe), configuration(recipe, variant)
        assert list(plain["stages"]) == list(changed["stages"])
        differing = [name for name in plain["stages"] if plain["stages"][name] != changed["stages"][name]]
        assert differing == list(raw(variant)["stages"])


def test_pvdm_s_is_half_as_wide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configuration(CONFIGS / "pvdm_sky.yaml", CONFIGS / "variants" / "pvdm_s.yaml")
    model = config["stages"]["diffusion"]["model"]["init_args"]
    assert model["denoiser"]["init_args"]["model_channels"] == 128 and model["next_steps"] == 20
    assert model["sampler"]["init_args"] == {"steps": 100, "eta": 1.0, "rule": "pvdm", "spacing": "trailing"}
