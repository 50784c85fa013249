"""Processes that share one device: the numbers of one process, errors as one line, nothing left behind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from adamqlr.errors import UserError
from adamqlr.jobs.interrupts import StopRequest
from adamqlr.jobs.processes import process_count, run_together
from adamqlr.stages.train import train
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import load_config
from adamqlr.tuning.trials import read_trials

ConfigFile = Callable[..., Path]


def test_packed_seeds_are_those_of_one_process_in_their_order(config_file: ConfigFile, tmp_path: Path) -> None:
    config = load_config(config_file())
    paths = {count: tmp_path / f"{count}.nc" for count in (1, 2)}
    for count, path in paths.items():
        train(Case(config, "epochs", "digits", "adamqlr_untuned"), [4, 0, 2], {}, path, count)
    alone, packed = (xr.load_dataset(path) for path in paths.values())
    assert (alone.attrs["runs_sharing_device"], packed.attrs["runs_sharing_device"]) == (1, 2)
    assert packed["seed"].values.tolist() == [4, 0, 2]
    for name in ("value", "step", "records", "diverged"):
        np.testing.assert_array_equal(packed[name].values, alone[name].values, err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".yaml") == ["1.nc", "2.nc"]


def test_packed_search_tries_every_configuration_of_its_shard(config_file: ConfigFile, tmp_path: Path) -> None:
    config = load_config(config_file())
    tune(Case(config, "epochs", "digits", "adam"), (1, 2), tmp_path / "1.nc", 2)
    trials = read_trials(tmp_path / "1.nc")
    assert trials["trial"].values.tolist() == [1, 3]
    assert trials.attrs["runs_sharing_device"] == 2
    assert np.isfinite(trials["seconds"]).all()


def refuse(index: int, stop: StopRequest) -> None:
    if index == 1:
        raise UserError("the data is bad")


def crash(index: int, stop: StopRequest) -> None:
    raise ZeroDivisionError


def test_problems_of_a_process_reach_the_one_that_started_it() -> None:
    with pytest.raises(UserError, match="the data is bad"):
        run_together(refuse, 2, StopRequest())
    with pytest.raises(RuntimeError, match="exit codes"):
        run_together(partial(crash), 2, StopRequest())


def test_only_a_gpu_is_shared_unless_asked_for() -> None:
    assert process_count(None, torch.device("cpu"), 6, 10) == 1
    assert process_count(None, torch.device("cuda"), 6, 10) == 6
    assert process_count(None, torch.device("cuda"), 6, 4) == 4
    assert process_count(3, torch.device("cpu"), 6, 10) == 3
