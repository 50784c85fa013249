"""Files that version 0.1 wrote open, and what it was stopped in goes on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from adamqlr.cli import cli

STORED = Path(__file__).parent / "fixtures" / "version_0.1"
PAIR = ["--dataset", "digits", "--optimizer", "adam"]
PACKED = ["--set", "training.pack=always"]


def adamqlr(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.parametrize("kind", ["runs", "packed_runs", "cube", "trials"])
def test_a_stored_file_is_described(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    adamqlr("info", STORED / f"{kind}.nc")
    described = capsys.readouterr().out
    assert "digits" in described
    assert "long_name" not in described


@pytest.mark.parametrize("kind", ["runs", "packed_runs"])
def test_stored_runs_are_aggregated_to_the_stored_numbers(kind: str, tmp_path: Path) -> None:
    adamqlr("aggregate", STORED / f"{kind}.nc", "--grid-points", 20, "--output", tmp_path / "cube.nc")
    cube, stored = xr.load_dataset(tmp_path / "cube.nc"), xr.load_dataset(STORED / "cube.nc")
    known = cube.sel(metric=stored["metric"])
    np.testing.assert_allclose(known["value_by_step"], stored["value_by_step"], rtol=1e-4 if "packed" in kind else 0)
    if kind == "runs":
        np.testing.assert_array_equal(known["value"], stored["value"])
        # Powers round otherwise on processors without AVX-512.
        np.testing.assert_array_max_ulp(known["time"].values, stored["time"].values, maxulp=1)


def test_stored_cubes_and_trials_make_a_study_that_is_drawn(tmp_path: Path) -> None:
    study = tmp_path / "study.nc"
    adamqlr("aggregate", STORED / "cube.nc", STORED / "trials.nc", "--output", study)
    adamqlr("figures", "performance", "--study", study, "--suite", "epochs", "--output", tmp_path / "performance")
    adamqlr("tables", "final_results", "--study", study, "--suite", "epochs", "--output", tmp_path / "final_results")
    adamqlr("claims", "--study", study, "--output", tmp_path / "claims")
    assert (tmp_path / "performance.png").stat().st_size > 10_000
    assert "Adam" in (tmp_path / "final_results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["runs", "packed_runs"])
def test_a_stored_checkpoint_of_training_goes_on(mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "runs.nc"
    shutil.copy(STORED / f"{mode}.checkpoint", tmp_path / ".runs.nc.checkpoint")
    settings = PACKED if mode == "packed_runs" else []
    with caplog.at_level("INFO"):
        adamqlr(
            *("train", "--config", STORED / "config.yaml", *PAIR, *settings, "--best", STORED / "best.yaml"),
            *("--seeds", "0-1", "--output", output),
        )
    assert any("on from step" in message for message in caplog.messages)
    runs, stored = xr.load_dataset(output), xr.load_dataset(STORED / f"{mode}.nc")
    np.testing.assert_array_equal(runs["step"], stored["step"])
    # Another processor rounds otherwise.
    ours, theirs = (data["value"].sel(metric=["train_loss", "test_loss"]) for data in (runs, stored))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("mode", ["shard", "packed_shard"])
def test_a_stored_journal_and_checkpoint_of_tuning_go_on(
    mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "shard.nc"
    shutil.copy(STORED / f"{mode}.checkpoint", tmp_path / ".shard.nc.checkpoint")
    shutil.copy(STORED / f"{mode}.journal", tmp_path / ".journal")
    settings = PACKED if mode == "packed_shard" else []
    with caplog.at_level("INFO"):
        adamqlr("tune", "--config", STORED / "config.yaml", *PAIR, *settings, "--output", output)
    assert any("on from step" in message for message in caplog.messages)
    trials, stored = xr.load_dataset(output), xr.load_dataset(STORED / "trials.nc")
    assert trials.attrs["identity"] == stored.attrs["identity"]
    for name in ("hyperparameter_lr", "hyperparameter_batch_size"):
        np.testing.assert_array_equal(trials[name], stored[name])
    if mode == "shard":
        np.testing.assert_array_equal(trials["state"], stored["state"])
        np.testing.assert_allclose(trials["value"], stored["value"], rtol=1e-3)


def test_stored_trials_are_selected_from(tmp_path: Path) -> None:
    adamqlr("select", STORED / "trials.nc", "--output", tmp_path / "trials.nc", "--best", tmp_path / "best.yaml")
    assert (tmp_path / "best.yaml").read_text() == (STORED / "best.yaml").read_text()
