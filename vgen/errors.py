"""The one exception that stands for a mistake a person can mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A wrong config, path, name or file: shown as one line of what, one of where and one of what to do.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: What is wrong, in one line.
        where: The config key, file or option it was found in.
        hint: What to do about it.
    """

    def __init__(self, what: str, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {one_line(self.where)}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def one_line(name: object) -> str:
    """A name as it can be shown in one line: line breaks, and bytes that are no UTF-8, are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Returns a hint that names the closest known word, or None where nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else None
