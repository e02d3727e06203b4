"""Objects describe how they were built, as plain data, and are built again from it."""

import functools
from abc import ABC
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vgen.configurable import Configurable, class_path, describe, require_described
from vgen.errors import UserError
from vgen.models.lfdm import LFAE, LFDM, GeneratorConfig
from vgen.models.lfdm.networks.lfae import LFAE as SAME_LFAE

HERE = __name__


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Group:
    width: int = 2
    names: tuple[str, ...] = ("a", "b")


@dataclass
class Kind(ABC):  # noqa: B024  an abstract base without methods is what is described differently
    size: int = 1


@dataclass
class One(Kind):
    more: float = 0.5


class Inner(Configurable, nn.Module):
    def __init__(self, width: int, *, bias: bool = True, items: list[int] | None = None) -> None:
        super().__init__()
        self.width = width


class Outer(Configurable, nn.Module):
    def __init__(self, inner: nn.Module, group: Group = Group(), where: Path | None = None) -> None:
        super().__init__()
        self.inner = inner


class Wider(Inner):
    def __init__(self, factor: int = 3, **kwargs: Any) -> None:
        super().__init__(width=2 * factor, **kwargs)


class Renamed(Inner):
    """No constructor of its own."""


class Silent(nn.Module):
    """Records nothing."""


def test_arguments_with_defaults_are_recorded():
    assert Inner(4).configuration == {"width": 4, "bias": True, "items": None}
    assert Inner(width=4, bias=False).configuration == {"width": 4, "bias": False, "items": None}
    assert describe(Renamed(1))["class_path"] == f"{HERE}.Renamed"
    given = [1, 2]
    recorded = Inner(4, items=given)
    given.append(3)  # what happens to the argument later changes nothing
    assert recorded.configuration["items"] == [1, 2]


def test_the_outermost_constructor_counts():
    assert Wider(5, bias=False).configuration == {"factor": 5, "bias": False}
    assert Wider(5).width == 10 and Wider().configuration == {"factor": 3}


def test_nested_objects():
    outer = Outer(Inner(3), Group(5), Path("a") / "b")
    assert outer.configuration == {
        "inner": {"class_path": f"{HERE}.Inner", "init_args": {"width": 3, "bias": True, "items": None}},
        "group": {"width": 5, "names": ["a", "b"]},
        "where": str(Path("a/b")),
    }
    assert outer.configuration == Outer(outer.inner, Group(5), Path("a/b")).configuration


def test_values():
    assert describe((1, "x", None, True, 0.5)) == [1, "x", None, True, 0.5]
    assert describe(Colour.RED) == "red"
    assert describe(OrderedDict(a=(1, 2))) == {"a": [1, 2]}
    # one of several kinds has to be named, a group of settings has not
    assert describe(One()) == {"class_path": f"{HERE}.One", "init_args": {"size": 1, "more": 0.5}}
    assert describe(Group()) == {"width": 2, "names": ["a", "b"]}
    assert describe(torch.optim.Adam) == {"class_path": "torch.optim.Adam"}
    optimiser = functools.partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))
    assert describe(optimiser) == {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-4, "betas": [0.5, 0.999]}}


def test_public_paths():
    assert SAME_LFAE is LFAE and class_path(LFAE) == "vgen.models.lfdm.LFAE"
    assert class_path(LFDM) == "vgen.models.lfdm.LFDM"
    assert class_path(nn.Linear) == "torch.nn.Linear"
    assert class_path(Inner) == f"{HERE}.Inner"
    network = LFAE(2, generator=GeneratorConfig(4, 8, 1, 1))
    assert network.configuration["generator"]["flow_predictor"]["block_expansion"] == 64


@pytest.mark.parametrize(
    "value, place, kind",
    [
        (Outer(Silent()).configuration, r"LFDM\.inner", "Silent"),
        ({"a": [1, describe(torch.zeros(2))]}, r"LFDM\.a\[1\]", "Tensor"),
        ({"optimizer": describe(lambda parameters: None)}, r"LFDM\.optimizer", "function"),
    ],
)
def test_what_cannot_be_described_is_named(value, place, kind):
    with pytest.raises(UserError, match=f"{kind} does not record") as caught:
        require_described(value, "LFDM")
    assert caught.match(kind) and __import__("re").fullmatch(place, caught.value.where)


def test_plain_data_passes():
    value = {"a": [1, {"b": None}]}
    assert require_described(value, "LFDM") is value


def test_building_something_undescribable_is_no_error_by_itself():
    assert isinstance(Outer(Silent()).inner, Silent)  # only a checkpoint needs the description
