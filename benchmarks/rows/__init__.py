"""The rows of the step-time table, one module for each family; the tiny ones are for tests of the benchmarks."""

from benchmarks.rows import lfdm, pvdm, svg, vdm, videogpt, vidm
from benchmarks.rows.base import Row

ROWS: dict[str, Row] = {**lfdm.ROWS, **pvdm.ROWS, **vdm.ROWS, **vidm.ROWS, **svg.ROWS, **videogpt.ROWS}
