"""`python -m vgen` is the `vgen` command."""

from vgen.cli.main import console

console()
