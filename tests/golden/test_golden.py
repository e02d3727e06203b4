"""Our networks still compute what they computed when they had passed parity (see networks.py for the weights)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden.networks import GOLDEN, fill, small_lfae, wave

HERE = Path(__file__).parent


@torch.no_grad()
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    stored = load_file(HERE / f"{name}.safetensors")
    inputs, expected = ({k[len(p) :]: v for k, v in stored.items() if k.startswith(p)} for p in ("in/", "out/"))
    _, found = GOLDEN[name](inputs)
    assert set(found) == set(expected)
    for key, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(
            found[key], value, atol=1e-5 + 2e-5 * scale, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
        )


def test_the_weights_are_those_of_the_recipe():
    weight = fill(small_lfae()).state_dict()["generator.first.conv.weight"]
    expected = wave("generator.first.conv.weight", (4, 3, 7, 7)) * 1.7 / (3 * 7 * 7) ** 0.5
    torch.testing.assert_close(weight, expected.float())


def test_inputs_are_those_of_the_recipe():
    stored = load_file(HERE / "lfdm_lfae.safetensors")
    recipe, _ = GOLDEN["lfdm_lfae"](None)
    torch.testing.assert_close(stored["in/source"], recipe["source"])
