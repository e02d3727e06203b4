"""Renaming of state-dict keys by regular expressions: how official checkpoints become ours."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from vgen.errors import UserError


@dataclass(frozen=True)
class Rule:
    """One renaming.

    Args:
        pattern: Regular expression searched in the key.
        replacement: Replacement of every match (`re.sub`); None drops the tensor.
    """

    pattern: str
    replacement: str | None = None


@dataclass
class KeyReport:
    """What became of the keys of one conversion.

    Args:
        dropped: Official keys that a rule drops.
        missing: Our keys that the file does not hold.
        unexpected: Renamed keys that our network does not have.
        wrong_shape: Our keys with another shape in the file: key -> (theirs, ours).
    """

    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every tensor found its place."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        """One line: counts, and the first few names of each kind."""
        parts = []
        for name in ("missing", "unexpected", "wrong_shape"):
            keys = list(getattr(self, name))
            if keys:
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                parts.append(f"{len(keys)} {name.replace('_', ' ')} ({', '.join(keys[:3])}{more})")
        return "; ".join(parts) or "all keys matched"


class KeyMap:
    """Applies rules in order to each key; a key that no rule touches keeps its name.

    Args:
        rules: Renamings; the first dropping rule that matches ends the work on a key.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = [(re.compile(rule.pattern), rule.replacement) for rule in rules]

    def rename(self, key: str) -> str | None:
        """Our name of an official key, or None where it is dropped."""
        for pattern, replacement in self.rules:
            if replacement is not None:
                key = pattern.sub(replacement, key)
            elif pattern.search(key):
                return None
        return key

    def convert(
        self, state: Mapping[str, Tensor], expected: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], KeyReport]:
        """Renames a state dict and compares it with the one our network has.

        Args:
            state: Official state dict.
            expected: State dict of our network; None compares nothing.

        Returns:
            The renamed state dict and the report.

        Raises:
            ValueError: Two official keys became the same key of ours.
        """
        report = KeyReport()
        renamed: dict[str, Tensor] = {}
        for key, value in state.items():
            new = self.rename(key)
            if new is None:
                report.dropped.append(key)
            elif new in renamed:
                raise ValueError(f"two keys became {new!r}, the second is {key!r}")
            else:
                renamed[new] = value
        if expected is not None:
            report.missing = sorted(set(expected) - set(renamed))
            report.unexpected = sorted(set(renamed) - set(expected))
            for key in sorted(set(renamed) & set(expected)):
                theirs, ours = tuple(renamed[key].shape), tuple(expected[key].shape)
                if theirs != ours:
                    report.wrong_shape[key] = (theirs, ours)
        return renamed, report

    def load(self, module: nn.Module, state: Mapping[str, Tensor], where: str | None = None) -> KeyReport:
        """Loads an official state dict into our network; nothing may be missing, left over or of another shape.

        Args:
            module: Our network.
            state: Official state dict.
            where: File name for the error message.

        Raises:
            UserError: The keys or shapes do not fit.
        """
        renamed, report = self.convert(state, module.state_dict())
        if not report.complete:
            raise UserError(
                f"the weights do not fit {type(module).__name__}: {report}",
                where=where,
                hint="choose the configuration that this file was trained with",
            )
        module.load_state_dict(renamed)
        return report


def subset(state: Mapping[str, Tensor], prefixes: str | Iterable[str]) -> dict[str, Tensor]:
    """The entries under a prefix, without it (one prefix), or under any of several, with it."""
    if isinstance(prefixes, str):
        return {key[len(prefixes) :]: value for key, value in state.items() if key.startswith(prefixes)}
    return {key: value for key, value in state.items() if key.startswith(tuple(prefixes))}
