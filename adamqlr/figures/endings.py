"""Tables of what was run and how runs end: where, which diverged, and when they were good enough."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from adamqlr.figures.cubes import by_dataset, pairs_of
from adamqlr.figures.tables import Table, make_table
from adamqlr.results.statistics import Resampling
from adamqlr.results.targets import steps_to_target, target_loss, time_to_target


def provenance(study: xr.DataTree, suite: str, resampling: Resampling) -> Table:
    """Tabulate what was run, where, for how long, and with which versions."""
    rows = []
    for group in by_dataset(pairs_of(study, suite)).values():
        cubes = [pair.cube for pair in group]
        seconds = sum(float(cube["final_time"].sum()) for cube in cubes)
        rows.append(
            {
                "Dataset": group[0].dataset_label,
                "Optimizers": len(group),
                "Runs": sum(cube.sizes["seed"] for cube in cubes),
                "Training time": _duration(seconds),
                "Device": _distinct(cube.attrs["device"] for cube in cubes),
                "Runs sharing it": _distinct(str(cube.attrs["runs_sharing_device"]) for cube in cubes),
                "PyTorch": _distinct(json.loads(cube.attrs["versions"])["torch"] for cube in cubes),
                "Revision": _distinct(_short_revision(cube.attrs["git_revision"]) for cube in cubes),
            }
        )
    return make_table(rows, rows)


def _duration(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= size), ("s", 1))
    return f"{seconds / size:.3g} {unit}"


def _short_revision(revision: str) -> str:
    commit, dash, mark = revision.partition("-")
    return f"{commit[:12]}{dash}{mark}"


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def divergence(study: xr.DataTree, suite: str, resampling: Resampling) -> Table:
    """Tabulate how many runs diverged, and when: medians over those that did."""
    numbers, shown = [], []
    for pair in pairs_of(study, suite):
        cube = pair.cube
        diverged = cube["diverged"].astype(bool)
        count, runs = int(diverged.sum()), cube.sizes["seed"]
        step = float(cube["diverged_step"].where(diverged).median()) if count else float("nan")
        time = float(cube["diverged_time"].where(diverged).median()) if count else float("nan")
        row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer, "runs": runs}
        numbers.append({**row, "diverged": count, "median_step": step, "median_time": time})
        shown.append(
            {
                "Dataset": pair.dataset_label,
                "Optimizer": pair.optimizer_label,
                "Diverged": f"{count} of {runs}",
                "Median step": f"{step:.0f}" if count else "–",
                "Median time (s)": f"{time:.3g}" if count else "–",
            }
        )
    return make_table(numbers, shown)


def time_to_target_table(study: xr.DataTree, suite: str, resampling: Resampling, target_gap: float) -> Table:
    """Tabulate how many runs reach their dataset's target, and the median cost over all runs."""
    numbers, shown = [], []
    for group in by_dataset([pair for pair in pairs_of(study, suite) if not pair.is_trajectory]).values():
        target = target_loss([pair.cube for pair in group], target_gap)
        for pair in group:
            times, steps = time_to_target(pair.cube, target), steps_to_target(pair.cube, target)
            reached = float(np.isfinite(times).mean())
            time, step = float(times.median()), float(steps.median())
            row: dict[str, Any] = {"dataset": pair.dataset, "optimizer": pair.optimizer, "target": target}
            numbers.append({**row, "reached": reached, "median_time": time, "median_steps": step})
            shown.append(
                {
                    "Dataset": pair.dataset_label,
                    "Target test loss": f"{target:.4g}",
                    "Optimizer": pair.optimizer_label,
                    "Reached": f"{100 * reached:.0f} %",
                    "Median time (s)": f"{time:.3g}" if np.isfinite(time) else "–",
                    "Median steps": f"{step:.0f}" if np.isfinite(step) else "–",
                }
            )
    return make_table(numbers, shown)
