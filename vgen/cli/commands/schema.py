"""`vgen schema`: the JSON schema of recipes, for completion and checks in an editor."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--out", metavar="FILE", help="write it there instead of printing it")


def run(args: argparse.Namespace) -> int:
    """Prints or writes the schema.

    Raises:
        UserError: The file cannot be written.
    """
    from vgen.cli.schema import dump, recipe_schema
    from vgen.errors import UserError
    from vgen.files import write_text

    text = dump(recipe_schema())
    if args.out is None:
        print(text, end="")
        return 0
    try:
        write_text(Path(args.out), text)
    except OSError as error:
        raise UserError(f"cannot write the schema: {error.strerror or error}", str(args.out)) from error
    print(args.out)
    return 0
