"""Where a result comes from, as flat attributes of its file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adamqlr.study.fingerprint import fingerprint
from adamqlr.study.names import SENSITIVITY

if TYPE_CHECKING:
    from adamqlr.study.case import Case
    from adamqlr.study.config import StudyConfig

_PACKAGES = ("adamqlr", "numpy", "optuna", "snakemake", "torch", "torchvision", "xarray")


def file_attributes(
    case: Case,
    *,
    seeds: Sequence[int],
    hyperparameters: Mapping[str, Any],
    device: str,
    split: str | None = None,
    **extra: str | int | float,
) -> dict[str, str | int | float]:
    """Return the attributes of a result file.

    Args:
        case: What was run; all of the study's configuration is kept.
        seeds: The runs' seeds.
        hyperparameters: What the optimizer was made with, and the data's.
        device: The device's product name.
        split: What ordered the rows when they were read; what would order them now if not given.
        **extra: Further attributes.
    """
    study, split = case.study, case.split if split is None else split
    space = {name: distribution.model_dump(mode="json") for name, distribution in case.space.items()}
    return {
        "study": study.name,
        "suite": case.suite,
        "dataset": case.dataset,
        "dataset_label": study.dataset_label(case.dataset),
        "optimizer": case.optimizer,
        "optimizer_label": case.spec.label,
        "loss": case.settings.loss,
        "seeds": json.dumps(list(seeds)),
        "hyperparameters": json.dumps(dict(hyperparameters)),
        "config": config_text(study),
        "search_space_hash": fingerprint(space),
        **({"split": split} if split else {}),
        "git_revision": git_revision(),
        "versions": json.dumps({"python": platform.python_version(), **_versions()}),
        "device": device,
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "slurm_gpus": os.environ.get("SLURM_JOB_GPUS", os.environ.get("SLURM_STEP_GPUS", "")),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def config_text(study: StudyConfig) -> str:
    """Return a study's configuration as files keep it: complete, in YAML."""
    text: str = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
    return text


def group_of(attrs: Mapping[str, Any]) -> str:
    """Return where a cube lies in study.nc: suite/dataset/optimizer, or sensitivity/sweep/value."""
    if "sweep" in attrs:
        return f"{SENSITIVITY}/{attrs['sweep']}/{attrs['sweep_point']}"
    return "/".join(attrs[part] for part in ("suite", "dataset", "optimizer"))


def git_revision() -> str:
    """Return the commit of the source checkout, marked where files differ from it; ``unknown`` outside one."""
    try:
        # A package that is installed in somebody's checkout is no part of it.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--abbrev=40", "--dirty", "--match=")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions
