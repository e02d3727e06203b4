"""The report of one or several runs: a single HTML file that needs no network."""

from vgen.report.page import render, write_report
from vgen.report.read import Run, read_run

__all__ = ["Run", "read_run", "render", "write_report"]
