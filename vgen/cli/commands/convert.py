"""`vgen convert`: turn official checkpoint files into an export that `vgen.load` opens.

Nothing in a file is run: one that holds more than tensors and plain containers is refused. A family takes part by a
module `vgen/models/<family>/convert.py` with a function `convert(...)`, whose arguments become options. Where the
release has another name than the family, or there are several, the module is `convert_<release>.py`. Where it has a
table `DATA` of the DataModule of each preset, the function takes `preset`, and `class_names` and `fps` of that data.
"""

import argparse
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vgen.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_FROM_DATA: set[str | int] = {"class_names", "fps"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments; those of a family come from its own function."""
    parser.add_argument("family", metavar="FAMILY", help=f"{', '.join(families())}")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help="see `vgen convert FAMILY --help`")


def families() -> dict[str, str]:
    """The families and releases that official files can be converted for, and their modules."""
    import vgen

    folder = Path(vgen.__file__).parent / "models"
    found = {}
    for path in sorted(folder.glob("*/convert*.py")):
        family = path.parent.name
        found[path.stem.removeprefix("convert").removeprefix("_") or family] = f"vgen.models.{family}.{path.stem}"
    return found


def run(args: argparse.Namespace) -> int:
    """Converts and writes the export.

    Raises:
        UserError: No such family, wrong options, or files that are not what they should be.
    """
    known = families()
    if args.family not in known:
        hint = did_you_mean(args.family, known) or f"there: {', '.join(known)}"
        raise UserError(f"no official files can be converted for family {args.family!r}", "vgen convert", hint)
    module = importlib.import_module(known[args.family])
    given = _parse(module, args.family, args.options)
    out, overwrite = Path(given.pop("out")), given.pop("overwrite")
    return _write(module, given, out, overwrite)


def _parser(module: ModuleType, family: str) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"vgen convert {family}", description=module.__doc__, exit_on_error=False)
    parser.add_function_arguments(module.convert, skip=_FROM_DATA if hasattr(module, "DATA") else set())
    parser.add_argument("--out", type=str, required=True, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    return parser


def _parse(module: ModuleType, family: str, options: list[str]) -> dict[str, Any]:
    parser = _parser(module, family)
    actions = [action for action in parser._actions if action.option_strings]
    names = [name for action in actions for name in action.option_strings]
    used = [text.partition("=")[0] for text in options if text.startswith("-")]
    for option in used:
        if option not in names:
            raise UserError(f"unknown option {option}", f"vgen convert {family}", did_you_mean(option, names))
    parameters = inspect.signature(module.convert).parameters.values()
    required = [f"--{p.name}" for p in parameters if p.default is p.empty and p.name not in _FROM_DATA]
    needed = [name for name in (*required, "--out") if name not in used]
    if needed and not {"-h", "--help"} & set(used):
        raise UserError(f"{' and '.join(needed)} is needed", f"vgen convert {family}", "see --help")
    try:
        parsed = parser.parse_args(options)
    except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        from vgen.cli.explain import explain

        raise explain(str(error), f"vgen convert {family}") from error
    return dict(parsed.as_dict())


def _write(module: ModuleType, given: dict[str, Any], out: Path, overwrite: bool) -> int:
    import json

    from vgen.callbacks.provenance import parameter_table
    from vgen.cli.model_card import model_card
    from vgen.cli.trained import model_inputs
    from vgen.data import datamodules
    from vgen.files import atomic_folder
    from vgen.video import Samples
    from vgen.weights.checkpoint import build_model, read_model_file
    from vgen.weights.export import check_target, write_export

    check_target(out, overwrite)
    if hasattr(module, "DATA"):
        data = getattr(datamodules, module.DATA[given["preset"]])
        # Names that stand in a set's own lists are known where the set is.
        names = data.class_names if isinstance(data.class_names, tuple) else ()
        given |= {"class_names": names, "fps": float(data.own_fps)}
    export, lines = module.convert(**given)
    print("\n".join(lines), flush=True)
    with atomic_folder(out) as folder:
        write_export(export, folder)
        model = build_model(read_model_file(folder))  # what has been written can be read
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parameters = {str(name): int(count) for name, count in parameter_table(model)}
        inputs = model_inputs(model) if isinstance(model, Samples) else set()
        (folder / "README.md").write_text(model_card(out.name, config, parameters, inputs), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {type(model).__name__}, {size / 1e6:.1f} MB; vgen.load({str(out)!r}) opens it")
    return 0
