import argparse
from dataclasses import replace

import pytest

from vgen.cli.commands import models
from vgen.errors import UserError
from vgen.models.card import FamilyCard, planned_families


def call(*arguments):
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)
    return models.run(parser.parse_args(list(arguments)))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    card = FamilyCard(
        "toy", "Toy", "A paper", 2020, "trains", "moves squares", parameters={"network": 66004557}, parity_vectors=3
    )
    monkeypatch.setattr(models, "discover", lambda: [card, *planned_families()])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lightning_configs").mkdir()
    (tmp_path / "lightning_configs" / "toy_squares.yaml").write_text("# Toy on squares, 8x8x4.\nstages: {}\n")
    return card


def test_table(toy, capsys):
    assert call() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["toy", "trains", "2020", "3", "vectors", "1"]
    assert len(lines) == 2 + len(planned_families())
    assert all("planned" in line for line in lines[2:])


def test_detail(toy, capsys):
    assert call("toy") == 0
    out = capsys.readouterr().out
    assert "66,004,557" in out and "Toy on squares" in out
    assert "vgen fit --config lightning_configs/toy_squares.yaml" in out


def test_recipes_of_several_names(toy, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "discover", lambda: [replace(toy, recipes=("toy", "doll"))])
    (tmp_path / "lightning_configs" / "doll_circles.yaml").write_text("# Doll.\nstages: {}\n")
    assert call("toy") == 0
    out = capsys.readouterr().out
    assert "doll_circles.yaml" in out and "toy_squares.yaml" in out


def test_unknown_family(toy):
    with pytest.raises(UserError) as caught:
        call("mocogan_dh")
    assert "did you mean 'mocogan_hd'" in str(caught.value)


def test_planned_families_are_complete():
    cards = planned_families()
    assert len({card.name for card in cards}) == len(cards)
    assert all(card.status == "planned" and card.summary and card.paper for card in cards)


def test_every_family_folder_has_a_card():
    found = {card.name: card for card in models.discover()}
    import vgen.models

    for folder in vgen.models.__path__:
        from pathlib import Path

        for module in Path(folder).glob("*/module.py"):
            card = found[module.parent.name]
            assert card.status != "planned"
            assert card.recipe in {recipe.stem for recipe in models.own_recipes(card)}, "the one that is compared"


def test_a_status_without_meaning_is_refused():
    with pytest.raises(ValueError, match="status"):
        FamilyCard("x", "X", "p", 2020, "done")  # type: ignore[arg-type]
