"""HTML and SVG by function calls, in which every string is escaped unless it was built here."""

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "input"})  # HTML elements without a closing tag; those of SVG have one


class Markup(str):
    """Text that is HTML already; everything else is escaped on its way into a page."""


def _flatten(node: object) -> str:
    if node is None:
        return ""
    if isinstance(node, Markup):
        return str(node)
    if isinstance(node, (str, int, float)):
        return escape(str(node))
    if isinstance(node, Iterable):
        return "".join(_flatten(child) for child in node)
    raise TypeError(f"cannot put {type(node).__name__} into a page")


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Builds one element.

    Args:
        name: Name of the element.
        children: Markup (kept), strings and numbers (escaped), None (nothing), or iterables of these.
        attributes: A trailing underscore is dropped (`class_`), other underscores become hyphens. True writes the
            bare name, False and None leave the attribute out.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{_flatten(children)}</{name}>")


def join(*nodes: object) -> Markup:
    """Several nodes side by side."""
    return Markup(_flatten(nodes))


def number(value: float | None, digits: int = 4) -> str:
    """A number for reading: significant digits, thousands separated, no exponent where it can be avoided."""
    if value is None or value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.{digits - 1}g}"
    whole = len(str(int(size))) if size >= 1 else 0
    if size >= 1:
        return f"{value:,.{max(digits - whole, 0)}f}"
    return f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """A time span: `48 s`, `3 min 20 s`, `5 h 12 min`, `2 d 4 h`."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for name, unit, smaller, rest in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= unit:
            remainder = whole % unit // rest
            return f"{whole // unit} {name}" + (f" {remainder} {smaller}" if remainder else "")
    return f"{whole} s"
