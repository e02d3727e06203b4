"""Loads the cases, and names the vectors of families that do not exist yet."""

import importlib
import os
from pathlib import Path

import pytest

from parity import registry

for _path in sorted((Path(__file__).parent / "cases").glob("[!_]*.py")):
    importlib.import_module(f"parity.cases.{_path.stem}")

_DEVIATIONS: list[str] = []


@pytest.fixture
def report_deviation():
    """Collects one line per vector for the terminal summary."""
    return _DEVIATIONS.append


def pytest_terminal_summary(terminalreporter):
    directory = os.environ.get("PARITY_DIR")
    if not directory or not Path(directory).is_dir():
        return
    vectors = registry.find(Path(directory))
    uncovered = [
        vector.name
        for vector in vectors
        if (vector.family, vector.target) not in registry.CASES and not registry.shipped(vector.family)
    ]
    terminalreporter.section("parity")
    for line in _DEVIATIONS:
        terminalreporter.write_line(line)
    if uncovered:
        terminalreporter.write_line(f"not covered ({len(uncovered)} vectors of families that do not exist here):")
        for name in uncovered:
            terminalreporter.write_line(f"  {name}")
