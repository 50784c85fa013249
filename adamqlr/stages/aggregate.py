"""Aggregation: from run files to a cube, and from cubes and trials to the study's file."""

from collections.abc import Sequence
from pathlib import Path

from adamqlr.errors import UserError
from adamqlr.files import Kind, peek_kind
from adamqlr.results.cube import build_cube, write_cube
from adamqlr.results.join import write_study
from adamqlr.results.runs import read_runs


def aggregate(inputs: Sequence[Path], output: Path, grid_points: int) -> None:
    """Reduce the run files of one pair to a cube, or join cubes and trials into the study's file.

    Raises:
        UserError: A file is none of them, run files are mixed with others, or they do not belong together.
    """
    kinds = {path: peek_kind(path) for path in inputs}
    if set(kinds.values()) == {Kind.RUNS}:
        write_cube(output, build_cube([read_runs(path) for path in inputs], grid_points))
    elif set(kinds.values()) <= {Kind.CUBE, Kind.TRIALS}:
        write_study(inputs, output)
    else:
        odd = next(
            (path for path, kind in kinds.items() if kind not in (Kind.RUNS, Kind.CUBE, Kind.TRIALS)), inputs[-1]
        )
        raise UserError(f"{odd}: expected either run files, or cubes and trials, found {kinds[odd]} among them")
