"""What a family says about itself: the one source of `vgen models`, the README's table and the tests of counts."""

import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal, get_args

Status = Literal["reproduced", "converted", "trains", "planned"]

STATUS_MEANING: dict[Status, str] = {
    "reproduced": "the published metric came out of our own training",
    "converted": "released weights load and give the official network's outputs",
    "trains": "networks, loss and sampler equal the official code's; trained on small data only",
    "planned": "not here yet",
}


@dataclass(frozen=True)
class FamilyCard:
    """One model family.

    Args:
        name: Folder under `vgen/models`.
        title: Name that the paper gives the model.
        paper: Authors, venue and, where there is one, the arXiv number.
        year: Year of publication.
        status: How far it is; `STATUS_MEANING` says what each word claims.
        summary: What it does, in one sentence.
        recipe: The recipe that stands for it where families are compared.
        parameters: Published or officially counted number of parameters of each network at full size.
        parity_vectors: How many parity vectors of the official networks its tests claim.
        code: Address of the official code.
        license: Licence of the official code, as its repository states it.
        recipes: What the names of its recipes begin with; none: its name.
    """

    name: str
    title: str
    paper: str
    year: int
    status: Status
    summary: str = ""
    recipe: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    parity_vectors: int = 0
    code: str = ""
    license: str = ""
    recipes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a status that has no meaning."""
        if self.status not in get_args(Status):
            raise ValueError(f"{self.name}: status {self.status!r} is none of {', '.join(get_args(Status))}")


def planned_families() -> list[FamilyCard]:
    """Reads `planned.toml`: the families that are on the road map, in the order of the file."""
    data = tomllib.loads(files("vgen.models").joinpath("planned.toml").read_text(encoding="utf-8"))
    return [FamilyCard(status="planned", **entry) for entry in data["family"]]
