"""What is compared with JAX takes the same steps, and is compared with it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from adamqlr import KFAC, AdamQLR
from adamqlr.optim.qlr import QLR
from tests.benchmarks.cases import CAPTURED, EAGER, ENERGY, JAX, Case, perceptron
from tests.benchmarks.peers import __main__ as command_line
from tests.benchmarks.peers import process
from tests.benchmarks.peers.compare import COMPARED, one_core
from tests.benchmarks.peers.process import ROOT, Peers, has_peers, starting_point
from tests.benchmarks.report import peers_table
from tests.benchmarks.rows import PEERS, row_of, table
from tests.benchmarks.timing import Blocks

STEPS = 10
CLASSES = perceptron("", [784, 50, 10], 400)
# Adam's first direction is the gradient's signs, all but for ε: rounding decides some of them.
TOLERANCES = {torch.float32: 5e-4, torch.float64: 1e-8}
needs_jax = pytest.mark.skipif(not has_peers(), reason="make benchmark-peers has not made JAX's environment")
with_cases = pytest.mark.parametrize("case", [ENERGY, CLASSES], ids=["half_mse", "cross_entropy"])
in_precisions = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def traces(
    case: Case, dtype: torch.dtype, key: str, optimizer_class: type[QLR], **options: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the numbers of each step by name, and the parameters after the last, here and by JAX."""
    model, batch = starting_point(case, dtype)
    optimizer = optimizer_class(model, case.loss, **options)  # type: ignore[arg-type]
    infos = [optimizer.step(*batch) for _ in range(STEPS)]
    ours = {name: np.array([float(getattr(info, name)) for info in infos]) for name in infos[0]._fields}
    ours["parameters"] = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    with Peers(case, dtype) as peers:
        return ours, {name: np.array(values) for name, values in peers.trace(key, STEPS).items()}


def assert_same_steps(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float) -> None:
    for name in ("loss", "lr", "rho"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=tolerance, err_msg=name)
    distance = np.linalg.norm(theirs["parameters"] - ours["parameters"]) / np.linalg.norm(ours["parameters"])
    assert distance < tolerance


@needs_jax
@with_cases
@in_precisions
def test_adamqlr_by_jax_takes_the_same_steps(case: Case, dtype: torch.dtype) -> None:
    ours, theirs = traces(case, dtype, "adamqlr", AdamQLR)
    assert_same_steps(ours, theirs, TOLERANCES[dtype])
    np.testing.assert_allclose(theirs["damping"], ours["damping"], rtol=1e-6)
    assert len(set(ours["damping"])) > 3, "damping adapts"


@needs_jax
@with_cases
@in_precisions
def test_kfac_jax_is_configured_as_kfac_here(case: Case, dtype: torch.dtype) -> None:
    ours, theirs = traces(case, dtype, "kfac_exact", KFAC, fisher="exact")
    assert_same_steps(ours, theirs, TOLERANCES[dtype])
    np.testing.assert_allclose(theirs["momentum"], ours["momentum"], atol=TOLERANCES[dtype])
    # What kfac-jax reports is λ before the step.
    np.testing.assert_allclose(theirs["damping"][1:], ours["damping"][:-1], rtol=1e-6)


@needs_jax
def test_every_training_starts_anew() -> None:
    with Peers(ENERGY) as peers:
        for optimizer in COMPARED:
            first = peers.trace(optimizer, 2)
            assert peers.seconds(optimizer, 3) > 0
            assert peers.trace(optimizer, 2) == first


@needs_jax
def test_a_process_that_ends_is_an_error() -> None:
    with Peers(ENERGY) as peers, pytest.raises(RuntimeError, match="no_optimizer"):
        peers.seconds("no_optimizer", 1)


@needs_jax
def test_a_quick_run_compares_every_pair(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.peers", "--quick", f"--output={tmp_path}"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert (tmp_path / "peers.md").read_text() in printed
    frame = pd.read_csv(tmp_path / "peers.csv")
    for _, of in frame.groupby(["network", "batch"]):
        assert list(zip(of["optimizer"], of["mode"], strict=True)) == [
            (key, mode) for key in COMPARED for mode in (JAX, EAGER, CAPTURED)
        ]
        assert (of["milliseconds"] > 0).all()
        assert of["ratio"].notna().tolist() == [False, True, True] * len(COMPARED)


def test_the_table_has_both_times_and_their_ratio() -> None:
    theirs, eager, captured = (Blocks([k * 0.002, k * 0.003, k * 0.004]) for k in (1, 4, 2))
    rows = [row_of(PEERS, ENERGY, "adamqlr", JAX).timed(theirs, None)]
    rows += [row_of(PEERS, ENERGY, "adamqlr", EAGER).timed(eager, theirs)]
    rows += [row_of(PEERS, ENERGY, "adamqlr", CAPTURED).timed(captured, theirs)]
    title, text = peers_table(table(rows, "somewhere"))
    assert "kfac-jax 0.0.6" in title
    cells = [cell.strip() for cell in text.splitlines()[-1].split("|")[1:-1]]
    assert cells == ["UCI Energy 8-50-1, 588", "AdamQLR", "3.00 ± 0.50", "12.0 ± 2.0", "6.00 ± 1.00", "2.00 ± 0.00"]


def test_one_core_is_given_back() -> None:
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    with one_core():
        assert torch.get_num_threads() == len(os.sched_getaffinity(0)) == 1
    assert torch.get_num_threads() == threads
    assert os.sched_getaffinity(0) == cores


def test_without_jax_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "ENVIRONMENT", tmp_path)
    result = CliRunner().invoke(command_line.main, ["--quick", f"--output={tmp_path}"])
    assert result.exit_code == 2
    assert "make benchmark-peers" in result.output
