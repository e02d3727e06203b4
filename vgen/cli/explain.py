"""Turns jsonargparse's nested messages into one line of what, one of where, and a hint."""

import importlib
import inspect
import re
import sys
from dataclasses import dataclass

from lightning.pytorch import Trainer

from vgen.cli.recipe import STAGE_KEYS
from vgen.errors import UserError, did_you_mean

_OPTIONS = (
    *("--config", "--run_dir", "--only", "--resume", "--overwrite", "--stage"),
    *("--print_config", "--help", "--help_all"),
)
_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_CONTEXT = re.compile(
    r"Parser key|Problem with given class_path|Does not validate against|Subtypes:|Errors:|Given value"
)
# Branches of a union that nobody meant.
_NO_HELP = re.compile(r"NoneType|Expected a path but .* either not accessible or invalid")
_LITERAL = re.compile(r"Expected a typing\.Literal\[(.*)\]\.? ?(?:Got value: (.*))?$")


@dataclass
class _Leaf:
    """The innermost statement of a message, with what encloses it."""

    text: str
    keys: list[str]
    class_path: str | None


def _leaves(message: str) -> list[_Leaf]:
    """Reads the tree that jsonargparse draws by indentation; returns its leaves."""
    stack: list[tuple[int, str]] = []
    leaves: list[_Leaf] = []
    for line in message.splitlines():
        if not line.strip():
            continue
        text = line.strip()
        indent = len(line) - len(line.lstrip()) + (2 if text.startswith("- ") else 0)
        text = text.removeprefix("- ")
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, text))
        if _CONTEXT.match(text) and not re.search(r'Parser key "[^"]+": \S', text):
            continue
        keys = [m.group(1) for _, t in stack if (m := _KEY.match(t))]
        classes = [m.group(1) for _, t in stack if (m := _CLASS.match(t))]
        leaves.append(_Leaf(text, keys, classes[-1] if classes else None))
    return leaves


def explain(message: str, where: str) -> UserError:
    """Makes a UserError of a parser's message.

    Args:
        message: What jsonargparse said.
        where: The command, for messages that name no key.
    """
    leaves = [leaf for leaf in _leaves(message) if not _NO_HELP.search(leaf.text)] or [_Leaf(message.strip(), [], None)]
    # Of the branches of a union, the one that got furthest is what the person meant.
    leaf = max(leaves, key=lambda x: (len(x.keys), x.class_path is not None, _LITERAL.search(x.text) is not None))
    choices = [
        choice.strip("' ")
        for other in leaves
        if other.keys == leaf.keys and (match := _LITERAL.search(other.text))
        for choice in match.group(1).split(",")
    ]
    choices = list(dict.fromkeys(choices))
    text = leaf.text.strip()
    key = ".".join(leaf.keys) or where
    if match := re.search(r"Option '([\w.+]+)' is not accepted", text):
        return _unknown_key(match.group(1), leaf, where)
    if match := re.search(r"[Uu]nrecognized arguments?: *(\S+)", text):
        option = match.group(1).split("=")[0]
        if option.startswith("--stages."):
            return _unknown_key(option.removeprefix("--"), leaf, where)
        return UserError(f"unknown option {option}", where, did_you_mean(option, _OPTIONS))
    if match := re.search(r"Expected a dot import path string: (\S+)|has no attribute.*class_path='([^']+)'", text):
        name = match.group(1) or match.group(2)
        return UserError(f"no such class: {name}", key, _hint_class(name))
    if leaf.class_path and re.search(r"has no attribute|No module named|Import path|import path|not a subclass", text):
        return UserError(f"no such class: {leaf.class_path} ({text})", key, _hint_class(leaf.class_path))
    if match := re.search(r"Expected a <class '(?:\w+\.)*(\w+)'>\.? ?(?:Got value: (.*))?$", text):
        wanted, given = match.groups()
        if given is not None and re.fullmatch(r"[\w.]*[A-Za-z]\w*", given) and wanted[0].isupper():
            return UserError(f"no such class: {given}", key, _hint_class(given))
        return UserError(f"expected {_NAMES.get(wanted, wanted)}" + (f", got {given!r}" if given else ""), key)
    if match := _LITERAL.search(text):
        given = match.group(2) or message.rstrip().rpartition("Given value: ")[2]
        return UserError(f"expected one of {', '.join(choices)}; got {given!r}", key, did_you_mean(given, choices))
    text = re.sub(r'^Parser key "[^"]+":\s*', "", text)
    return UserError(re.sub(r"\s+", " ", text)[:200], key)


_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def _unknown_key(path: str, leaf: _Leaf, where: str) -> UserError:
    parts = path.split(".")
    if leaf.class_path is not None:
        known = _arguments(leaf.class_path)
        full = ".".join([*leaf.keys, parts[0]])
        return UserError(f"{leaf.class_path} has no argument {parts[0]!r}", full, _hint_argument(parts[0], known))
    if parts[0] != "stages" or len(parts) < 3:
        return UserError(f"unknown key {path!r}", where, did_you_mean(parts[0], ("run_dir", "stages", "all_stages")))
    if parts[2] not in STAGE_KEYS:
        return UserError(f"unknown key {parts[2]!r}", ".".join(parts[:3]), _hint_argument(parts[2], list(STAGE_KEYS)))
    names = list(inspect.signature(Trainer).parameters) if parts[2] == "trainer" else ["class_path", "init_args"]
    name = parts[3] if len(parts) > 3 else parts[2]
    return UserError(f"unknown key {name!r}", ".".join(parts[:4]), _hint_argument(name, names))


def _hint_argument(name: str, known: list[str]) -> str | None:
    return did_you_mean(name, known) or (f"it has {', '.join(known)}" if 0 < len(known) <= 12 else None)


def _arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    cls = getattr(sys.modules.get(module) or importlib.import_module(module), name, None)
    names = list(inspect.signature(cls).parameters) if isinstance(cls, type) else []
    return [n for n in names if n != "clip_spec"]


def _hint_class(path: str) -> str | None:
    """The closest public class: in the module that was named, or of that name anywhere in vgen."""
    module, _, name = path.rpartition(".")
    loaded = sys.modules.get(module)
    here = [n for n in vars(loaded) if isinstance(getattr(loaded, n), type)] if loaded else []
    if (hint := did_you_mean(name, here)) is not None:
        return hint.replace("mean '", f"mean '{module}.")
    public = {
        f"{package}.{n}": n
        for package, content in list(sys.modules.items())
        if package.startswith("vgen.") and content is not None
        for n in getattr(content, "__all__", ())
        if isinstance(getattr(content, n, None), type)
    }
    by_name = {n: path for path, n in sorted(public.items(), reverse=True)}
    if (hint := did_you_mean(name, by_name)) is not None:
        found = hint.split("'")[1]
        return f"did you mean {by_name[found]!r}?"
    return None
