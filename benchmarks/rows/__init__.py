"""The rows of the step-time table, one module for each family; the tiny ones are for tests of the benchmarks."""

from benchmarks.rows import lfdm, pvdm, svg, vdm, video_gans, videogpt, vidm
from benchmarks.rows.base import Row

_FAMILIES = (lfdm, pvdm, vdm, vidm, svg, videogpt, video_gans)
ROWS: dict[str, Row] = {name: row for family in _FAMILIES for name, row in family.ROWS.items()}
