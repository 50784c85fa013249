"""The table of what was run: where, for how long, and with which versions."""

import json
from collections.abc import Iterable

from adamqlr.results.study import Study, by_dataset
from adamqlr.tables.table import Table, make_table


def tabulate(study: Study, suite: str) -> Table:
    """Tabulate what was run, where, for how long, and with which versions."""
    rows = []
    for group in by_dataset(study.pairs(suite)).values():
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
                "Revision": _distinct(_short_revisions(cube.attrs["git_revision"]) for cube in cubes),
            }
        )
    return make_table(rows, rows)


def _duration(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= size), ("s", 1))
    return f"{seconds / size:.3g} {unit}"


def _short_revisions(revisions: str) -> str:
    parts = (revision.partition("-") for revision in revisions.split(", "))
    return ", ".join(dict.fromkeys(f"{commit[:12]}{dash}{mark}" for commit, dash, mark in parts))


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))
