"""Thin a study's file to what fits a repository: `python docs/excerpt.py results/cpu/study.nc docs/data/cpu_study.nc`.

Every cube keeps its seeds and their ends, in single precision, the metrics of results, and fewer times and steps; the
configuration stands once, in the file. Searches stay as they are.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

from adamqlr.files import KIND, Kind, write_netcdf
from adamqlr.results.attributes import group_of
from adamqlr.results.study import load_study, write_study
from adamqlr.study.config import SENSITIVITY

METRICS = ("train_loss", "validation_loss", "test_loss", "test_accuracy", "lr", "damping", "sharpness")
# Times and steps of a curve, and of a sensitivity study's value, which is judged by its end.
POINTS, SENSITIVITY_POINTS = 40, 8


def thinned(cube: xr.Dataset, points: int) -> xr.Dataset:
    """Return a cube with so many of its times and steps, the first and last among them."""
    cube = cube.sel(metric=[metric for metric in METRICS if metric in cube["metric"]])
    for axis in ("time", "step"):
        kept = np.unique(np.linspace(0, cube.sizes[axis] - 1, points).round().astype(int))
        cube = cube.isel({axis: kept})
    doubles = {name: cube[name].astype(np.float32) for name in ("value", "value_by_step")}
    return cube.assign(doubles)


def main() -> None:
    """Write the excerpt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    with TemporaryDirectory() as folder:
        parts = []
        for number, leaf in enumerate(study.leaves):
            part = leaf.to_dataset()
            kind = Kind(part.attrs[KIND])
            if kind == Kind.CUBE:
                part = thinned(part, SENSITIVITY_POINTS if group_of(part.attrs).startswith(SENSITIVITY) else POINTS)
            if parts:
                part.attrs["config"] = "that of the whole study"
            parts.append(Path(folder) / f"{number}.nc")
            write_netcdf(part, parts[-1], kind)
        write_study(parts, arguments.output)


if __name__ == "__main__":
    main()
