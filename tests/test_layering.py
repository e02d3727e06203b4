"""The architecture, as far as a parser can see it: who imports whom, where Lightning is, how long a file may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vgen"
MOST_LINES = 500

# What each part may import of the others; every part may import itself and FOR_ALL.
FOR_ALL = frozenset({"errors", "files", "configurable", "_torchvision"})
_BASE = frozenset({"video"})
_BLOCKS = _BASE | {"nn", "weights"}
_PARTS = _BLOCKS | {"losses", "diffusion", "conditioning", "codecs"}
_TRAINING = _PARTS | {"training"}
ALLOWED: dict[str, frozenset[str]] = {
    "video": frozenset(),
    "nn": _BASE,
    "weights": _BASE,
    "losses": _BLOCKS,
    "diffusion": _BLOCKS,
    "conditioning": _BLOCKS,
    "codecs": _BLOCKS,
    "training": _PARTS,
    "models": _TRAINING,
    "data": _BASE,
    "metrics": _BLOCKS,
    "callbacks": frozenset({"video", "metrics", "training"}),
    "report": _BASE,
    "loading": _TRAINING | {"models"},
    "__main__": frozenset({"cli"}),
    "cli": _TRAINING | {"models", "data", "metrics", "callbacks", "report", "loading"},
}
LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")


def part_of(path: Path) -> str:
    """`vgen/nn/conv.py` -> `nn`, `vgen/errors.py` -> `errors`, `vgen/__init__.py` -> ``."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").removesuffix("__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere, with its line; `from vgen.nn import conv` gives `vgen.nn.conv`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def lightning_belongs(path: Path) -> bool:
    parts = path.relative_to(PACKAGE).parts
    if parts[0] in ("training", "callbacks", "cli") or parts[:2] == ("data", "datamodules"):
        return True
    return parts[0] == "models" and parts[-1].endswith("module.py")  # a family of two stages has two


def violations(path: Path) -> Iterator[str]:
    own = part_of(path)
    place = path.relative_to(ROOT).as_posix()
    family = path.relative_to(PACKAGE).parts[1] if own == "models" else None
    for line, module in imports(path):
        if module.split(".")[0] in LIGHTNING and not lightning_belongs(path):
            yield f"{place}:{line} imports {module}: Lightning is for training, module.py, datamodules, callbacks, cli"
        parts = module.split(".")
        if parts[0] != "vgen" or len(parts) < 2:
            continue
        other = parts[1]
        if other == own == "models" and len(parts) > 2:
            families = {folder.name for folder in (PACKAGE / "models").iterdir() if folder.is_dir()}
            if family in families and parts[2] in families - {family}:
                yield f"{place}:{line} imports the family {parts[2]}"
        if other.startswith("__") or other in FOR_ALL or other == own:
            continue
        # The package itself offers `load` by name; it is imported on first use only.
        if own == "" and other in ("loading", "load", "_torchvision"):
            continue
        if other not in ALLOWED.get(own, frozenset()):
            yield f"{place}:{line} imports vgen.{other}, which {own or 'the package'} may not"


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_part_has_a_rule():
    parts = {part_of(path) for path in SOURCES} - {""} - FOR_ALL
    assert parts <= set(ALLOWED), f"say in ALLOWED what {sorted(parts - set(ALLOWED))} may import"


def test_imports_follow_the_rule():
    found = [violation for path in SOURCES for violation in violations(path)]
    assert not found, "\n".join(found)


def test_no_drawer_for_everything():
    found = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if path.stem in ("utils", "util", "helpers", "helper", "misc")
    ]
    assert not found, f"a function lives where its noun lives: {found}"


def test_files_are_short():
    every = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n") for path in every}
    assert not {name: lines for name, lines in found.items() if lines > MOST_LINES}


@pytest.mark.parametrize(
    "place, source, wrong",
    [
        ("nn/conv.py", "import lightning.pytorch as pl", True),
        ("nn/conv.py", "from vgen.losses import perceptual", True),
        ("nn/conv.py", "from vgen.video import to_float", False),
        ("nn/conv.py", "def f():\n    from ..training import base", True),
        ("report/page.py", "from vgen import __version__", False),
        ("models/lfdm/module.py", "import lightning", False),
        ("models/lfdm/autoencoder_module.py", "import lightning", False),
        ("models/lfdm/networks.py", "import lightning", True),
        ("models/lfdm/module.py", "from vgen.models.card import FamilyCard", False),
        ("errors.py", "import vgen.video", True),
        ("video/io.py", "from vgen.errors import UserError", False),
        ("data/clips.py", "from vgen.loading import load", True),
    ],
)
def test_the_checker_itself(place, source, wrong, monkeypatch, tmp_path):
    path = tmp_path / "vgen" / place
    path.parent.mkdir(parents=True)
    path.write_text(source)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "vgen")
    assert bool(list(violations(path))) is wrong


def test_a_family_never_imports_another(monkeypatch, tmp_path):
    for family in ("one", "two"):
        (tmp_path / "vgen" / "models" / family).mkdir(parents=True)
    path = tmp_path / "vgen" / "models" / "one" / "module.py"
    path.write_text("from vgen.models.two.networks import Net\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "vgen")
    assert list(violations(path)) == ["vgen/models/one/module.py:1 imports the family two"]
