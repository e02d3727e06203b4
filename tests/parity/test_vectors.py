"""Our networks and formulas give the official numbers (set PARITY_DIR to a directory of vectors)."""

import os
from pathlib import Path

import pytest

from parity import registry

DIRECTORY = os.environ.get("PARITY_DIR")


def _claimed():
    if not DIRECTORY:
        reason = "PARITY_DIR is not set; tests/golden runs instead"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
    if not Path(DIRECTORY).is_dir():
        raise pytest.UsageError(f"PARITY_DIR={DIRECTORY} is not a directory")
    vectors = registry.find(Path(DIRECTORY))
    # a vector of a shipped family is run also when no case claims it, and then fails
    ours = [v for v in vectors if (v.family, v.target) in registry.CASES or registry.shipped(v.family)]
    return [pytest.param(vector, id=vector.name) for vector in ours]


@pytest.mark.parametrize("vector", _claimed())
def test_vector(vector, report_deviation):
    assert (vector.family, vector.target) in registry.CASES, f"no case claims {vector.family}/{vector.target}"
    deviations = registry.run(vector)
    worst = max(deviations, key=lambda d: d.largest / d.allowed if d.allowed else float(d.largest > 0))
    report_deviation(f"{vector.name}: {worst.output} {worst.largest:.2e} of {worst.allowed:.2e} allowed")
    failed = [f"{d.output}: {d.largest:.3e} > {d.allowed:.3e}" for d in deviations if not d.ok]
    assert not failed, "\n".join([vector.name, *failed])
