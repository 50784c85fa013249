"""Where a result comes from, as flat attributes of its file."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from adamqlr.config import SENSITIVITY, StudyConfig, fingerprint

_PACKAGES = ("adamqlr", "numpy", "optuna", "snakemake", "torch", "torchvision", "xarray")


def provenance(
    config: StudyConfig,
    *,
    suite: str,
    dataset: str,
    optimizer: str,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Any],
    device: str,
    **extra: str | int | float,
) -> dict[str, str | int | float]:
    """Return the attributes of a result file.

    Args:
        config: The study; all of it is kept.
        suite: The suite.
        dataset: The dataset's name.
        optimizer: The optimizer's name.
        seeds: The runs' seeds.
        hyperparameters: What the optimizer was made with, and ``batch_size``.
        device: The device's product name.
        **extra: Further attributes.
    """
    space = {name: d.model_dump(mode="json") for name, d in config.space(optimizer, dataset).items()}
    return {
        "study": config.name,
        "suite": suite,
        "dataset": dataset,
        "dataset_label": config.dataset_label(dataset),
        "optimizer": optimizer,
        "optimizer_label": config.optimizer_label(optimizer),
        "loss": config.dataset(dataset).loss,
        "seeds": json.dumps(list(seeds)),
        "hyperparameters": json.dumps(dict(hyperparameters)),
        "config": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        "search_space_hash": fingerprint(space),
        "git_revision": git_revision(),
        "versions": json.dumps({"python": platform.python_version(), **_versions()}),
        "device": device,
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "slurm_gpus": os.environ.get("SLURM_JOB_GPUS", os.environ.get("SLURM_STEP_GPUS", "")),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def group_of(attrs: Mapping[str, Any]) -> str:
    """Return where a cube lies in study.nc: suite/dataset/optimizer, or sensitivity/sweep/value."""
    if "sweep" in attrs:
        return f"{SENSITIVITY}/{attrs['sweep']}/{attrs['sweep_point']}"
    return "/".join(attrs[part] for part in ("suite", "dataset", "optimizer"))


def git_revision() -> str:
    """Return the commit of the source checkout, marked where files differ from it; ``unknown`` outside one."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions
