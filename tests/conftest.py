"""What tests share: small studies, and real data where there is any."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adamqlr.study.config import StudyConfig, parse_config

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
# Where tests run in the background, a shell has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data that ADAMQLR_DATA_DIR names."""
    folder = os.environ.get("ADAMQLR_DATA_DIR")
    if not folder:
        pytest.skip("ADAMQLR_DATA_DIR names no data folder")
    return Path(folder)


@pytest.fixture
def settings() -> dict[str, Any]:
    """A small study, as read from YAML."""
    return {
        "name": "small",
        "device": "cpu",
        "datasets": {"digits": {"epochs": 3}, "diabetes": {"epochs": 4}, "rosenbrock": {"epochs": 20}},
        "optimizers": [
            "adam",
            "adam_untuned",
            "sgd_full",
            "adamqlr",
            "adamqlr_untuned",
            "baydin_sgd",
            "kfac_untuned",
            "kfac_unadaptive",
        ],
        "tuning": {"trials": 4, "unit": "epochs", "first_rung": 1, "limit": 4, "reduction_factor": 2, "shards": 2},
        "training": {"seeds": 2, "seeds_per_job": 1},
        "statistics": {"grid_points": 20},
    }


@pytest.fixture
def study(settings: dict[str, Any]) -> StudyConfig:
    """The small study."""
    return parse_config(settings, "test")


@pytest.fixture
def config_file(settings: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Write the small study, some of its settings replaced, to a file."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**settings, **changes}, sort_keys=False))
        return path

    return write
