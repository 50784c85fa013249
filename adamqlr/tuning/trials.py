"""The file of trials, and the best of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from adamqlr.errors import UserError
from adamqlr.files import Kind, read_netcdf, write_netcdf, write_text

logger = logging.getLogger(__name__)

STATES = ("complete", "pruned", "diverged")


@dataclass(frozen=True)
class Trial:
    """What became of one configuration.

    Attributes:
        number: Its place in the order in which configurations were drawn.
        hyperparameters: What was drawn.
        values: The objective at each rung reached; +inf where it diverged.
        state: One of :data:`STATES`.
        seconds: Training seconds spent.
    """

    number: int
    hyperparameters: Mapping[str, Any]
    values: Sequence[float]
    state: str
    seconds: float


def trials_dataset(
    trials: Sequence[Trial], resources: Sequence[float], unit: str, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return trials as value(trial, rung), state(trial), seconds(trial) and one variable a hyperparameter.

    Args:
        trials: In any order.
        resources: The resource at each rung.
        unit: ``seconds``, ``epochs``, or ``steps`` that take so many seconds.
        attrs: Provenance.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    values = np.full((len(trials), len(resources)), np.nan)
    for row, trial in zip(values, trials, strict=True):
        row[: len(trial.values)] = trial.values
    dataset = xr.Dataset(
        {
            "value": (
                ("trial", "rung"),
                values,
                {"units": "1", "long_name": f"{attrs['objective']} at the rung"},
            ),
            "state": (
                "trial",
                [t.state for t in trials],
                {"units": "1", "long_name": "what became of the trial"},
            ),
            "seconds": (
                "trial",
                [t.seconds for t in trials],
                {"units": "s", "long_name": "training time spent"},
            ),
        },
        coords={
            "trial": (
                "trial",
                [t.number for t in trials],
                {"units": "1", "long_name": "configuration number"},
            ),
            "resource": (
                "rung",
                np.asarray(resources, dtype=float),
                {"units": "epoch" if unit == "epochs" else "s", "long_name": "resource at the rung"},
            ),
        },
        attrs=dict(attrs),
    )
    for name in trials[0].hyperparameters if trials else ():
        column = [trial.hyperparameters[name] for trial in trials]
        dataset[f"hyperparameter_{name}"] = ("trial", column, {"units": "1", "long_name": name})
    return dataset


def write_trials(dataset: xr.Dataset, path: Path) -> None:
    """Write trials to a NetCDF file."""
    write_netcdf(dataset, path, Kind.TRIALS)


def read_trials(path: Path) -> xr.Dataset:
    """Return the trials in a file, loaded into memory.

    Raises:
        UserError: It is not one.
    """
    return read_netcdf(path, Kind.TRIALS)


def merge_shards(paths: Sequence[Path]) -> xr.Dataset:
    """Return the trials in the files of a pair's shards, in the order of their numbers.

    Raises:
        UserError: A file is of another search or split of the rows, or trials are missing or doubled.
    """
    shards = [read_trials(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        if shard.attrs["identity"] != shards[0].attrs["identity"]:
            raise UserError(f"{path}: belongs to another search than {paths[0]}")
    _check_same_split(dict(zip(paths, shards, strict=True)))
    merged = xr.concat(shards, dim="trial", join="exact", combine_attrs="override", data_vars="minimal")
    merged = merged.sortby("trial")
    wanted = np.arange(shards[0].attrs["trials"])
    if not np.array_equal(merged["trial"], wanted):
        absent = sorted(set(wanted.tolist()) ^ set(merged["trial"].values.tolist()))
        raise UserError(f"{paths[0].parent}: trials missing or doubled, the first is {absent[:1] or 'a repeated one'}")
    return merged


def _check_same_split(shards: Mapping[Path, xr.Dataset]) -> None:
    # Earlier files do not know it, nor those of data whose rows are never ordered by a file.
    known = {path: shard.attrs["split"] for path, shard in shards.items() if "split" in shard.attrs}
    for path, split in known.items():
        first = next(iter(known))
        if split != known[first]:
            raise UserError(
                f"{first} and {path}: the rows are split differently ('{known[first]}' and '{split}'), as the file "
                "that orders them came, went or changed in between: remove one of the two to search anew"
            )


def best_trial(trials: xr.Dataset) -> xr.Dataset:
    """Return the trial with the lowest objective at the last rung that any trial reached with a finite value.

    One that diverged later counts only where all did, and of those that diverged before their first rung the one that
    was trained longest: final training then shows that they do.
    """
    finite = trials["value"].where(np.isfinite(trials["value"]))
    sound = finite.where(trials["state"] != "diverged")
    if sound.notnull().any():
        finite = sound
    reached = finite.notnull().any("trial").values
    if not reached.any():
        return trials.isel(trial=int(trials["seconds"].argmax("trial")), rung=0)
    rung = int(np.flatnonzero(reached)[-1])
    return trials.isel(trial=int(finite.isel(rung=rung).argmin("trial")), rung=rung)


def summary(trials: xr.Dataset) -> str:
    """Say in a line what became of trials and what the best one reached."""
    states = trials["state"].values.tolist()
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    if not np.isfinite(trials["value"]).any():
        return f"trials: {counts}"
    best = best_trial(trials)
    objective = str(trials.attrs["objective"]).replace("_", " ")
    return f"trials: {counts}; best {objective} {float(best['value']):.6g} in trial {int(best['trial'])}"


def write_best(trials: xr.Dataset, path: Path) -> None:
    """Write ``best.yaml``: the hyperparameters that final training reads, and where they come from."""
    best = best_trial(trials)
    if not np.isfinite(best["value"]):
        logger.warning(
            "all %d configurations diverged: final runs are of trial %d, which was trained longest. Where that is not "
            "what the study is to show, change optimizers.%s.space",
            trials.sizes["trial"],
            int(best["trial"]),
            trials.attrs["optimizer"],
        )
    prefix = "hyperparameter_"
    hyperparameters = {
        str(name).removeprefix(prefix): variable.item()
        for name, variable in best.data_vars.items()
        if str(name).startswith(prefix)
    }
    content = {
        "suite": trials.attrs["suite"],
        "dataset": trials.attrs["dataset"],
        "optimizer": trials.attrs["optimizer"],
        "trial": int(best["trial"]),
        "objective": trials.attrs["objective"],
        "value": float(best["value"]),
        "hyperparameters": hyperparameters,
    }
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def read_best(path: Path, suite: str, dataset: str, optimizer: str) -> dict[str, Any]:
    """Return the hyperparameters in ``best.yaml``; those of another suite are taken, and the log says so.

    Raises:
        UserError: The file is missing, is no such file, or is of another dataset or optimizer.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found, found_suite = (content["dataset"], content["optimizer"]), content["suite"]
        hyperparameters = dict(content["hyperparameters"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a file of best hyperparameters") from error
    if found != (dataset, optimizer):
        raise UserError(f"{path}: is of {'/'.join(map(str, found))}, not of {dataset}/{optimizer}")
    if found_suite != suite:
        logger.warning("%s: tuned for the suite '%s', and not for '%s'", path, found_suite, suite)
    return hyperparameters
