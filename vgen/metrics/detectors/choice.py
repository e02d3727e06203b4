"""Detectors by short words: what `vgen evaluate --detector` and the callback `Evaluate` take."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from vgen.errors import UserError, did_you_mean
from vgen.metrics.catalogue import Role
from vgen.metrics.detectors.base import Detector, SmallDetector
from vgen.metrics.detectors.compact import open_classifier
from vgen.metrics.detectors.opening import open_detector, random_detector
from vgen.metrics.protocols.protocol import Protocol

OPENED: tuple[Role, ...] = ("i3d", "c3d", "inception", "videomae", "clip", "dino")


def read_choices(given: Iterable[str], where: str = "--detector") -> dict[Role, str]:
    """Reads `ROLE=WHAT`; without a role, i3d is meant.

    Raises:
        UserError: No such role, or nothing behind it.
    """
    choices: dict[Role, str] = {}
    for text in given:
        role, equals, what = text.partition("=")
        if not equals or (role not in get_args(Role) and ("/" in role or "." in role)):
            role, what = "i3d", text
        if role not in OPENED:
            hint = did_you_mean(role, OPENED) or f"there are: {', '.join(OPENED)}"
            raise UserError(f"no detector {role!r} that could be another", where, hint)
        if not what:
            raise UserError(f"{text!r} names no detector", where, f"{role}=random, or {role}=FILE")
        choices[role] = what
    return choices


def chosen_detector(role: Role, choice: str | None, protocol: Protocol, batch: int) -> Detector:
    """Opens one detector.

    Args:
        role: Of `OPENED`.
        choice: None: the published file where it belongs. `random`: the full-size network with the weights of a recipe
            (i3d and c3d). A file: the published one at another place, or a compact classifier that vgen has trained
            (`classifier_*.safetensors`).
        protocol: Gives the epsilon and the resizing of I3D.
        batch: Clips in each pass.

    Raises:
        UserError: Missing, damaged, or of another kind.
    """
    if choice == "random":
        if role == "i3d":
            return random_detector("i3d", epsilon=protocol.eps, spatial=protocol.spatial, batch=batch)
        if role == "c3d":
            return random_detector("c3d", batch=batch)
        raise UserError(f"there are random weights for i3d and c3d, not for {role}", f"{role}=random")
    if choice is not None and Path(choice).name.startswith("classifier_"):
        classifier = open_classifier(choice)
        return SmallDetector(classifier, channels=classifier.settings["channels"], batch=batch)
    return open_detector(role, choice, epsilon=protocol.eps, spatial=protocol.spatial, batch=batch)


def chosen_detectors(
    roles: Iterable[Role], choices: Mapping[Role, str], protocol: Protocol, batch: int
) -> dict[Role, Detector]:
    """Opens the detectors of some roles: chosen ones, and the published ones where nothing is chosen.

    Raises:
        UserError: See `chosen_detector`; a detector that no metric reads.
    """
    roles = list(dict.fromkeys(roles))
    if unused := [role for role in choices if role not in roles]:
        raise UserError(
            f"no metric of this evaluation reads {unused[0]}: they read {', '.join(roles)}", f"{unused[0]}=..."
        )
    wanted = [role for role in roles if role in OPENED]
    return {role: chosen_detector(role, choices.get(role), protocol, batch) for role in wanted}
