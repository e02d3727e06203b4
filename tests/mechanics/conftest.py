"""One finished toy run that many tests look at; they must not write into it."""

import signal

import pytest

from tests.mechanics.runs import fit


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Both stages, uninterrupted, seven steps each."""
    return fit(tmp_path_factory.mktemp("finished") / "toy")


@pytest.fixture(autouse=True)
def _no_trap(monkeypatch):
    """No trap, no plan and no W&B account from outside."""
    for name in ("TOY_TRAP", "VGEN_PLAN", "LOCAL_RANK", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning switches it off after an interruption
