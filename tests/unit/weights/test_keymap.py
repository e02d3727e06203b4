import pytest
import torch
from torch import nn

from vgen.errors import UserError
from vgen.weights.keymap import KeyMap, Rule, subset

MAP = KeyMap([Rule(r"^module\.", ""), Rule(r"\.num_batches_tracked$"), Rule(r"^layer(\d)\.", r"\1.")])


def test_rules_rename_and_drop():
    assert MAP.rename("module.layer0.weight") == "0.weight"
    assert MAP.rename("layer0.num_batches_tracked") is None
    assert MAP.rename("other") == "other"


def test_load_reports_what_does_not_fit():
    network = nn.Sequential(nn.Linear(2, 3))
    MAP.load(network, {"layer0.weight": torch.ones(3, 2), "layer0.bias": torch.zeros(3)})
    assert network[0].weight.eq(1).all()
    with pytest.raises(UserError, match="1 missing") as error:
        MAP.load(network, {"layer0.weight": torch.ones(3, 3), "extra": torch.zeros(3)}, "file.pth")
    assert "1 unexpected (extra)" in str(error.value)
    assert "1 wrong shape (0.weight)" in str(error.value)
    assert "file.pth" in str(error.value)


def test_two_keys_must_not_become_one():
    with pytest.raises(ValueError, match="two keys"):
        MAP.convert({"layer0.x": torch.ones(1), "module.layer0.x": torch.ones(1)})


def test_subset():
    state = {"a.x": torch.ones(1), "b.x": torch.ones(1)}
    assert set(subset(state, "a.")) == {"x"}
    assert set(subset(state, ["a."])) == {"a.x"}
