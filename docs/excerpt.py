"""Thin a study's file to what fits a repository: `python docs/excerpt.py results/cpu/study.nc docs/data/cpu_study.nc`.

Every cube keeps its seeds and their ends, the metrics of results, and fewer times and steps (these in single
precision); the configuration stands once, in the file. Searches stay as they are.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import netCDF4
import numpy as np
import xarray as xr

from adamqlr.files import KIND, Kind, write_netcdf
from adamqlr.results.attributes import group_of
from adamqlr.results.join import write_study
from adamqlr.results.study_file import THINNED, load_results, study_config
from adamqlr.study.names import SENSITIVITY

METRICS = ("train_loss", "validation_loss", "test_loss", "train_accuracy", "test_accuracy", "lr", "damping")
# Times and steps of a curve.
POINTS = 16
WHAT_IS_LEFT = f"{POINTS} times and steps of each curve, some of the metrics, and the ends of sensitivity studies"
# What is said of the first cube, and not again.
ONCE = ("config", "versions", "created", "search_space_hash", "slurm_job", "slurm_gpus", "runs_sharing_device")
LEFT_OUT = ("metric_units", "metric_long_name", "diverged_step", "diverged_time")
# A sensitivity study's value is judged by its end.
OF_ENDS = ("value", "diverged", "final_step", "final_time")


def thinned(cube: xr.Dataset) -> xr.Dataset:
    """Return a cube with some of its times and steps, the first and last among them."""
    cube = cube.sel(metric=[metric for metric in METRICS if metric in cube["metric"]]).drop_vars(LEFT_OUT)
    for axis in ("time", "step"):
        kept = np.unique(np.linspace(0, cube.sizes[axis] - 1, POINTS).round().astype(int))
        cube = cube.isel({axis: kept})
    return cube.assign(value_by_step=cube["value_by_step"].astype(np.float32))


def ends(cube: xr.Dataset) -> xr.Dataset:
    """Return what a cube says of the ends of its runs."""
    return cube[list(OF_ENDS)].isel(time=[-1]).drop_vars(LEFT_OUT, errors="ignore")


def main() -> None:
    """Write the excerpt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    study = load_results(arguments.study)
    with TemporaryDirectory() as folder:
        parts = []
        for number, leaf in enumerate(study.leaves):
            part = leaf.to_dataset()
            kind = Kind(part.attrs[KIND])
            if kind == Kind.CUBE:
                part = ends(part) if group_of(part.attrs).startswith(SENSITIVITY) else thinned(part)
            if parts:
                part = part.drop_attrs(deep=False).assign_attrs({k: v for k, v in part.attrs.items() if k not in ONCE})
            parts.append(Path(folder) / f"{number}.nc")
            write_netcdf(part, parts[-1], kind)
        write_study(parts, arguments.output, study_config(arguments.study))
    with netCDF4.Dataset(arguments.output, "a") as file:
        file.setncattr(THINNED, WHAT_IS_LEFT)


if __name__ == "__main__":
    main()
