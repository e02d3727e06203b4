"""`vgen report`: one HTML file that shows a run, or several side by side."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directory, runs/<name>; several are compared")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the HTML file (default: report.html in the run directory, for several runs in the working directory)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the report and names the file.

    Raises:
        UserError: A folder is no run, or the file cannot be written.
    """
    from vgen.report import write_report

    path = write_report(args.runs, args.out)
    print(f"{path} ({path.stat().st_size / 2**20:.1f} MB)")
    return 0
