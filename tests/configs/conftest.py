"""The recipes, and a place with the fake data that their tiny overlays ask for."""

import copy
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.tiny_data import TINY
from vgen.cli.main import main
from vgen.cli.parser import parse
from vgen.cli.recipe import read_command_line

CONFIGS = Path(__file__).parents[2] / "lightning_configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))


def tiny_of(recipe):
    return CONFIGS / "tiny" / recipe.name


def arguments(*configs):
    return [argument for config in configs for argument in ("--config", str(config))]


def configuration(*configs, more=()):
    """The parsed configuration of a recipe and its overlays."""
    return copy.deepcopy(_configuration(*arguments(*configs), *more))


@cache
def _configuration(*words):
    return parse(read_command_line("fit", list(words)))[0]


def printed(capsys, *configs):
    """What --print_config prints, without its header."""
    capsys.readouterr()
    assert main(["fit", *arguments(*configs), "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A working directory for all recipes together: `data/` is filled on demand, `runs/` by the smoke runs."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def here(place, monkeypatch):
    """The place as the current directory, and no settings from outside."""
    for name in ("VGEN_PLAN", "LOCAL_RANK", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)
    return place


def provide_data(config):
    """Writes the fake sets that a configuration reads, where they are not there yet."""
    for name, stage in config["stages"].items():
        data = stage["data"]
        kind, root = data["class_path"].rpartition(".")[2], Path(data["init_args"]["root"])
        assert not root.is_absolute(), f"stages.{name}.data: a recipe names no place of one machine"
        if not root.exists() and kind != "MovingDigits":  # which are drawn
            assert kind in TINY, f"tests/tiny_data.py has no writer of fake data for {kind}"
            TINY[kind](root)
