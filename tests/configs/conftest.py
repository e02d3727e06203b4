"""The recipes, and a place with the fake data that their tiny overlays ask for."""

from pathlib import Path

import pytest
import yaml

from vgen.cli.main import main
from vgen.cli.parser import parse
from vgen.cli.recipe import read_command_line
from vgen.data.fake import write_folder, write_mhad, write_mug, write_natops

CONFIGS = Path(__file__).parents[2] / "lightning_configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))

# The smallest sets that fill a training and a test split; a new DataModule adds its own.
WRITERS = {
    "MUG": lambda root: write_mug(root, 64, train_subjects=1, test_subjects=1, takes=1, min_frames=16, max_frames=16),
    "MHAD": lambda root: write_mhad(root, 48, subjects=2, actions=(1, 9, 27), min_frames=16, max_frames=17),
    "NATOPS": lambda root: write_natops(root, 48, subjects=2, gestures=2, repetitions=1, min_frames=16, max_frames=17),
    "Folder": lambda root: write_folder(root, 64, subjects=3, frames=16),
}


def tiny_of(recipe):
    return CONFIGS / "tiny" / recipe.name


def arguments(*configs):
    return [argument for config in configs for argument in ("--config", str(config))]


def configuration(*configs, more=()):
    """The parsed configuration of a recipe and its overlays."""
    return parse(read_command_line("fit", [*arguments(*configs), *more]))[0]


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
        if not root.exists():
            assert kind in WRITERS, f"tests/configs/conftest.py has no writer of fake data for {kind}"
            WRITERS[kind](root)
