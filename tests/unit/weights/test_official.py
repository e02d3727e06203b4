from pathlib import Path

import pytest
import torch
from torch import nn

from vgen.errors import UserError
from vgen.files import sha256
from vgen.weights.official import check_schedule, counted, expecting, source_facts

FILE = Path("model.pth")


def test_weights_of_another_kind_are_named():
    with pytest.raises(UserError) as missing, expecting("a U-Net", FILE):
        {}["conv.weight"]
    assert missing.value.what == "the weights are not those of a U-Net: 'conv.weight' is missing"
    with pytest.raises(UserError) as wrong, expecting("a U-Net", FILE):
        int("conv")
    assert wrong.value.what.startswith("the weights are not those of a U-Net: invalid literal")
    assert (wrong.value.where, type(wrong.value.__cause__)) == ("model.pth", ValueError)
    with pytest.raises(ZeroDivisionError), expecting("a U-Net", FILE):
        _ = 1 / 0


def test_another_schedule_is_refused():
    ours = torch.linspace(1, 0, 10)
    check_schedule(None, ours, "ours", FILE)
    check_schedule(ours.double() + 1e-7, ours, "ours", FILE)
    for theirs in (ours**2, ours[:5], ours[:1]):
        with pytest.raises(UserError, match="the file has another noise schedule than ours"):
            check_schedule(theirs, ours, "ours", FILE)


def test_what_is_said_of_a_file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"weights")
    facts = {"file": "model.pth", "sha256": sha256(path)}
    assert source_facts(path) == facts
    assert source_facts(path, {"epoch": 3, "step": "4"}, "epoch", "step", "example") == {**facts, "epoch": 3}
    layer = nn.Linear(99, 20)
    assert counted("layer", layer, 2) == "layer: 2,000 parameters; all 2 tensors found their place"
    assert counted("layer", layer, 2, {2000: "one"}).startswith("layer: 2,000 parameters (as the released one); all 2")
