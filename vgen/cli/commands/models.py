"""`vgen models`: the families, how far each is, and one of them in detail."""

import argparse
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vgen.models.card import FamilyCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("family", nargs="?", help="show one family in detail")


def discover() -> "list[FamilyCard]":
    """Returns the cards of all families: folders of `vgen/models` that define FAMILY, then the planned ones."""
    import vgen.models
    from vgen.models.card import FamilyCard, planned_families

    here = []
    for entry in pkgutil.iter_modules(vgen.models.__path__):
        if entry.ispkg:
            card = getattr(importlib.import_module(f"vgen.models.{entry.name}"), "FAMILY", None)
            if isinstance(card, FamilyCard):
                here.append(card)
    names = {card.name for card in here}
    return sorted(here, key=lambda card: card.name) + [card for card in planned_families() if card.name not in names]


def published_parameters(module: type) -> dict[str, int]:
    """The published counts of the family that a LightningModule's class belongs to; none for classes of others."""
    package = module.__module__.split(".")
    if package[:2] != ["vgen", "models"]:
        return {}
    card = getattr(importlib.import_module(".".join(package[:3])), "FAMILY", None)
    return dict(card.parameters) if card is not None else {}


def recipe_folder() -> Path | None:
    """`lightning_configs` in the working directory, else in the checkout; None where there is neither."""
    import vgen

    places = (Path("lightning_configs"), Path(vgen.__file__).parents[1] / "lightning_configs")
    return next((folder for folder in places if folder.is_dir()), None)


def recipes(prefix: str) -> list[Path]:
    """Returns the recipes whose names begin so (see `recipe_folder`)."""
    folder = recipe_folder()
    return [] if folder is None else sorted(folder.glob(f"{prefix}_*.yaml"))


def own_recipes(card: "FamilyCard") -> list[Path]:
    """Returns a family's recipes, by name."""
    if card.status == "planned":
        return []
    return [recipe for prefix in card.recipes or (card.name,) for recipe in recipes(prefix)]


def _about(recipe: Path) -> str:
    """The first comment line of a recipe that is for people."""
    with recipe.open(encoding="utf-8") as file:
        for line in file:
            text = line.strip().removeprefix("#").strip()
            if not line.startswith("#"):
                break
            if not text.startswith("yaml-language-server:"):
                return text
    return ""


def _table(cards: "list[FamilyCard]") -> list[str]:
    header = ("family", "status", "year", "parity", "recipes", "what it is")
    rows = [header]
    for card in cards:
        parity = f"{card.parity_vectors} vectors" if card.parity_vectors else "-"
        count = len(own_recipes(card))
        rows.append((card.name, card.status, str(card.year), parity, str(count or "-"), card.summary or card.title))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)]
    return ["  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip() for row in rows]


def _detail(card: "FamilyCard") -> list[str]:
    from vgen.models.card import STATUS_MEANING

    lines = [f"{card.title} ({card.name})", *([f"  {card.summary}"] if card.summary else []), ""]
    facts = [
        ("paper", card.paper),
        ("status", f"{card.status}: {STATUS_MEANING[card.status]}"),
        ("code", card.code),
        ("licence", card.license),
        ("parity", f"{card.parity_vectors} vectors of the official networks" if card.parity_vectors else ""),
    ]
    lines += [f"  {name:<8} {text}" for name, text in facts if text]
    if card.parameters:
        width = max(map(len, card.parameters))
        lines += ["", "  parameters at the official size"]
        lines += [f"    {name:<{width}}  {count:>13,}" for name, count in card.parameters.items()]
    found = own_recipes(card)
    if found:
        width = max(len(str(path)) for path in found)
        lines += ["", "  recipes"]
        lines += [f"    {path!s:<{width}}  {_about(path)}".rstrip() for path in found]
        typical = next((path for path in found if path.stem == card.recipe), found[0])
        lines += ["", f"  vgen fit --config {typical}"]
    return lines


def run(args: argparse.Namespace) -> int:
    """Prints the table, or one family.

    Raises:
        UserError: No family has that name.
    """
    from vgen.errors import UserError, did_you_mean

    cards = discover()
    if args.family is None:
        print("\n".join(_table(cards)))
        return 0
    card = next((card for card in cards if card.name == args.family), None)
    if card is None:
        hint = did_you_mean(args.family, [card.name for card in cards]) or "`vgen models` lists them"
        raise UserError(f"no family {args.family!r}", hint=hint)
    print("\n".join(_detail(card)))
    return 0
