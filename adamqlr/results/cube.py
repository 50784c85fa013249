"""Cubes: all seeds of one (dataset, optimizer) pair on common time and step axes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from adamqlr.errors import UserError
from adamqlr.files import Kind, write_netcdf
from adamqlr.results.runs import TRAINING, metric_coordinates
from adamqlr.training.metrics import METRICS

# Attributes in which the run files of one cube may differ: the first file's is kept, or all of them.
_OF_FIRST_JOB = ("seeds", "config", "dataset_label", "optimizer_label")
_OF_EACH_JOB = (
    "created",
    "device",
    "git_revision",
    "slurm_job",
    "slurm_gpus",
    "runs_sharing_device",
    "time_source",
    "step_seconds",
    "packed_seeds",
)

# What earlier files do not say, and how it is named where two files differ in it.
_WHERE_KNOWN = {
    "split": "'split', the order of rows that sets are cut from",
    TRAINING: f"'{TRAINING}', what decides their numbers: settings, or the source of an optimizer of one's own",
}

Array = NDArray[np.float64]

_WORST = np.array([metric.worst for metric in METRICS.values()])


def build_cube(runs: Sequence[xr.Dataset], grid_points: int) -> xr.Dataset:
    """Join run files into value(seed, time, metric) and value_by_step(seed, step, metric).

    Between records, and after a run's end, the last value is held. From its divergence on, a diverged run counts as the
    worst there is (:class:`adamqlr.training.metrics.Metric`), and so does a loss that is no number at one record. The
    time grid is geometric, from the end of the earliest first step to the latest record; the steps are all that any
    seed recorded.

    Args:
        runs: Run files of the same configuration and different seeds.
        grid_points: Points of the time grid.

    Returns:
        The cube, its seeds in ascending order; ``step_at_time`` and how each run ended are in it too.

    Raises:
        UserError: The files are of different configurations, or a seed appears twice.
    """
    attrs = _common_attributes(runs)
    seeds = [_SeedRecords(run, index) for run in runs for index in range(run.sizes["seed"])]
    seeds.sort(key=lambda records: records.seed)
    numbers = [records.seed for records in seeds]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise UserError(f"{attrs['dataset']}/{attrs['optimizer']}: seed {twice} appears in two run files")
    defined = np.any([records.defined for records in seeds], axis=0)
    grid = _time_grid(seeds, grid_points)
    steps = np.unique(np.concatenate([records.steps for records in seeds]))
    by_time = np.stack([records.held(records.times, grid, defined) for records in seeds])
    by_step = np.stack([records.held(records.steps, steps, defined) for records in seeds])
    step_at_time = np.stack([records.steps[records.index(records.times, grid)] for records in seeds])
    ended = _ends(seeds)
    cube = xr.Dataset(
        {
            "value": (("seed", "time", "metric"), by_time, {"units": "1", "long_name": "value at a training time"}),
            "value_by_step": (("seed", "step", "metric"), by_step, {"units": "1", "long_name": "value after a step"}),
            "step_at_time": (("seed", "time"), step_at_time, {"units": "1", "long_name": "steps taken by a time"}),
            **{name: ("seed", data, {"units": units, "long_name": text}) for name, data, units, text in ended},
        },
        coords={
            "seed": ("seed", numbers, {"units": "1", "long_name": "seed of the run"}),
            "time": ("time", grid, {"units": "s", "long_name": "training time"}),
            "step": ("step", steps, {"units": "1", "long_name": "optimizer steps taken"}),
            **metric_coordinates(),
        },
        attrs={**attrs, "seeds": json.dumps(numbers)},
    )
    if all("parameters" in run for run in runs):
        trajectories = np.stack([records.parameters_held(steps) for records in seeds])
        cube = cube.assign_coords(parameter=runs[0]["parameter"])
        attributes = {"units": "1", "long_name": "value of the parameter after a step"}
        cube["parameters"] = (("seed", "step", "parameter"), trajectories, attributes)
    return cube


def _ends(seeds: Sequence["_SeedRecords"]) -> list[tuple[str, NDArray[np.generic], str, str]]:
    """Return name, values, units and meaning of what is known of each run's end."""
    divergence_steps = [records.steps[-1] if records.diverged else -1 for records in seeds]
    return [
        ("diverged", np.array([r.diverged for r in seeds]), "1", "whether the run diverged"),
        ("diverged_step", np.array(divergence_steps), "1", "step of divergence or −1"),
        ("diverged_time", np.array([r.times[-1] if r.diverged else np.nan for r in seeds]), "s", "time of divergence"),
        ("final_step", np.array([r.steps[-1] for r in seeds]), "1", "steps taken"),
        ("final_time", np.array([r.times[-1] for r in seeds]), "s", "training time of the run"),
        (
            "evaluation_seconds",
            np.array([r.evaluation_seconds for r in seeds]),
            "s",
            "time of an evaluation of all sets, which the training time leaves out",
        ),
    ]


class _SeedRecords:
    """One seed's records, without padding."""

    def __init__(self, run: xr.Dataset, index: int) -> None:
        count = int(run["records"].values[index])
        self.seed = int(run["seed"].values[index])
        self.diverged = bool(run["diverged"].values[index])
        self.evaluation_seconds = float(run["evaluation_seconds"].values[index])
        self.steps = run["step"].values[index, :count]
        self.times: Array = run["time"].values[index, :count]
        values: Array = run["value"].values[index, :count]
        self.defined = ~np.isnan(values).all(axis=0)
        # A step may end in parameters of which a whole set's loss is no number; only the next step would say so.
        broken = np.isnan(values) & self.defined
        broken[0] = False
        self._values = np.where(broken, _WORST, values)
        self._parameters = run["parameters"].values[index, :count] if "parameters" in run else None

    def index(self, recorded: NDArray[np.generic], wanted: NDArray[np.generic]) -> NDArray[np.intp]:
        """Return the last record at or before each wanted time or step; the first one where there is none."""
        return np.maximum(np.searchsorted(recorded, wanted, side="right") - 1, 0)

    def held(self, recorded: NDArray[np.generic], wanted: NDArray[np.generic], defined: NDArray[np.bool_]) -> Array:
        """Return the metrics at each wanted time or step, of shape (wanted, metric).

        Args:
            recorded: The times or steps of the records.
            wanted: The wanted ones.
            defined: Which metrics the pair has; the others stay NaN where a diverged run counts as the worst.
        """
        values = self._values[self.index(recorded, wanted)]
        if self.diverged:
            values[wanted >= recorded[-1]] = np.where(defined, _WORST, np.nan)
        return values

    def parameters_held(self, wanted: NDArray[np.generic]) -> Array:
        """Return the parameters at each wanted step, of shape (wanted, parameter)."""
        assert self._parameters is not None
        return self._parameters[self.index(self.steps, wanted)]


def _time_grid(seeds: Sequence[_SeedRecords], points: int) -> Array:
    first = min(records.times[min(1, len(records.times) - 1)] for records in seeds)
    last = max(records.times[-1] for records in seeds)
    grid = np.geomspace(max(first, 1e-9), max(last, 2e-9), points)
    grid[-1] = max(last, 2e-9)
    return grid


def _common_attributes(runs: Sequence[xr.Dataset]) -> dict[str, str]:
    first, may_differ = runs[0].attrs, {*_OF_FIRST_JOB, *_OF_EACH_JOB, "versions"}
    for name in {**first, **_WHERE_KNOWN}:
        files = [run.attrs for run in runs if name in run.attrs or name not in _WHERE_KNOWN]
        for attrs in files[1:]:
            if name not in may_differ and _value(attrs, name) != _value(files[0], name):
                raise UserError(
                    f"{first['dataset']}/{first['optimizer']}: run files of different configurations: seeds "
                    f"{files[0]['seeds']} and {attrs['seeds']} differ in {_WHERE_KNOWN.get(name, repr(name))}"
                )
    # A job of few seeds may have measured what another one counted.
    joined = {name: [run.attrs[name] for run in runs if name in run.attrs] for name in _OF_EACH_JOB}
    attrs = dict(first) | {name: _listed(each) for name, each in joined.items() if each}
    if "versions" in first:
        attrs["versions"] = _joined_versions([json.loads(run.attrs["versions"]) for run in runs])
    return attrs


def _listed(each: Sequence[Any]) -> str:
    """Return different values side by side; a job that was taken up again elsewhere has several itself."""
    return ", ".join(dict.fromkeys(value for one in each for value in str(one).split(", ")))


def _joined_versions(of_jobs: Sequence[Mapping[str, str]]) -> str:
    packages = dict.fromkeys(package for versions in of_jobs for package in versions)
    return json.dumps(
        {name: ", ".join(dict.fromkeys(own[name] for own in of_jobs if name in own)) for name in packages}
    )


def _value(attrs: Mapping[str, Any], name: str) -> Any:
    # In which order hyperparameters are given makes no difference.
    return json.loads(attrs[name]) if name == "hyperparameters" else attrs.get(name)


def write_cube(path: Path, cube: xr.Dataset) -> None:
    """Write a cube."""
    write_netcdf(cube, path, Kind.CUBE)
