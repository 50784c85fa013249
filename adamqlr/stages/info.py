"""What a result file holds, in words."""

import json
from pathlib import Path

import xarray as xr

from adamqlr.files import KIND, Kind, peek_kind, read_netcdf
from adamqlr.results.study_file import THINNED, open_study

_SHOWN = (
    "study",
    "suite",
    "dataset",
    "optimizer",
    "sweep",
    "sweep_point",
    "hyperparameters",
    "seeds",
    "device",
    "time_source",
    "git_revision",
    "created",
)


def describe(path: Path) -> str:
    """Return a description of a result file, some lines of text.

    Raises:
        UserError: The file is missing or no result of this project.
    """
    if peek_kind(path) == Kind.STUDY:
        return _describe_study(path)
    dataset = read_netcdf(path, Kind.RUNS, Kind.CUBE, Kind.TRIALS)
    lines = [f"{path}: {dataset.attrs['adamqlr_kind']}"]
    lines += [f"  {name}: {dataset.attrs[name]}" for name in _SHOWN if name in dataset.attrs]
    versions = json.loads(dataset.attrs["versions"])
    lines.append("  versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    lines += [_variable_line(name, variable) for name, variable in dataset.data_vars.items()]
    if "metric" in dataset.coords:
        lines.append("  metrics: " + ", ".join(dataset["metric"].values.tolist()))
    return "\n".join(lines)


def _variable_line(name: object, variable: xr.DataArray) -> str:
    shape = ", ".join(f"{dim}: {size}" for dim, size in variable.sizes.items())
    return f"  {name}({shape}): {variable.attrs.get('long_name', '')} [{variable.attrs.get('units', '1')}]"


def _describe_study(path: Path) -> str:
    with open_study(path) as tree:
        return _describe_tree(path, tree)


def _describe_tree(path: Path, tree: xr.DataTree) -> str:
    lines = [f"{path}: study '{tree.attrs['study']}', one group a suite/dataset/optimizer"]
    if left := tree.attrs.get(THINNED):
        lines.append(f"  thinned: {left}")
    for leaf in tree.leaves:
        if leaf.attrs[KIND] == Kind.TRIALS:
            lines.append(f"  {leaf.path}: {leaf.sizes['trial']} trials")
            continue
        diverged, seeds = int(leaf["diverged"].sum()), leaf.sizes["seed"]
        steps = f"{leaf.sizes['step']} recorded steps, " if "step" in leaf.sizes else ""
        lines.append(f"  {leaf.path}: {seeds} seeds, {steps}{diverged} diverged")
    return "\n".join(lines)
