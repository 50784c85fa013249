"""The benchmark runs, and compares what it has measured."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from adamqlr.study.optimizers import OPTIMIZERS
from tests.benchmarks import step_times
from tests.benchmarks.cases import BASELINE, ENERGY, MEASURED, baseline
from tests.benchmarks.limits import count
from tests.benchmarks.memory import peak_bytes
from tests.benchmarks.operator_calls import CASE, operator_calls
from tests.benchmarks.peers.process import has_peers
from tests.benchmarks.timing import QUICK, Blocks, Effort, Make, interleave

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def test_a_quick_run_compares_every_optimizer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--device=cpu", f"--output={tmp_path}"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "synthetic inputs" in printed
    assert "Eager and captured steps" in printed
    frame = pd.read_csv(tmp_path / "benchmark.csv")
    sections = {"steps", "packs", "batch size", "parameters", "limits", "K-FAC parts"}
    assert set(frame["section"]) == (sections | {"peers"} if has_peers() else sections)
    assert ("kfac-jax" in printed) == has_peers()
    assert set(frame["inputs"]) == {"synthetic"}
    assert (frame["milliseconds"] > 0).all()
    steps = frame[frame["section"] == "steps"]
    for _, of in steps.groupby(["network", "batch"]):
        eager, captured = (of[of["mode"] == mode].set_index("optimizer") for mode in ("eager", "captured"))
        assert list(eager.index) == [BASELINE, *MEASURED]
        assert eager.loc[BASELINE, "ratio"] == 1
        assert np.isfinite(eager[["ratio", "ratio_iqr", "milliseconds_iqr", "peak_mib"]]).all(axis=None)
        assert list(captured.index) == list(MEASURED)
        assert np.isfinite(captured[["ratio", "ratio_iqr", "milliseconds_iqr"]]).all(axis=None)
    packs = frame[frame["section"] == "packs"]
    members = packs["members"].fillna(1)
    np.testing.assert_allclose(packs["seed_steps_per_second"], 1e3 * members / packs["milliseconds"], rtol=1e-3)
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000


def test_every_class_of_the_study_is_measured() -> None:
    assert {OPTIMIZERS[key].factory for key in MEASURED} == {spec.factory for spec in OPTIMIZERS.values()}


def test_contenders_take_turns_from_new_networks() -> None:
    calls: list[str] = []

    def contender(name: str) -> Make:
        def make() -> Callable[[], object]:
            calls.append(f"new {name}")
            return lambda: calls.append(name)

        return make

    contenders = {name: contender(name) for name in ("one", "other")}
    blocks = interleave(contenders, Effort(rounds=4, block_steps=10))
    assert [name for name in calls if name.startswith("new")] == ["new one", "new other", "new other", "new one"] * 2
    assert [len(of) for of in blocks.values()] == [4, 4]
    blocks = interleave(contenders, Effort(rounds=4, block_steps=10, patience=0.0))
    assert [len(of) for of in blocks.values()] == [3, 3]


def test_ratios_are_to_the_baseline_of_the_same_case(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = {BASELINE: 0.002, "adam": 0.003, "adamqlr": 0.004, "kfac": 0.005}

    def measured(contenders: Mapping[tuple[str, str], Make], effort: Effort) -> dict[tuple[str, str], Blocks]:
        return {key: Blocks([durations[key[0]]] * 3) for key in contenders}

    monkeypatch.setattr(step_times, "interleave", measured)
    monkeypatch.setattr(step_times, "peak_bytes", lambda make, device: 2**20)
    rows = step_times.measure_growth(CPU, QUICK, quick=True)
    assert [row.optimizer for row in rows] == list(durations) * 4
    for row in rows:
        assert row.milliseconds == pytest.approx(1000 * durations[row.optimizer])
        assert row.peak_mib == (None if row.mode == "captured" else 1)
        assert row.ratio == pytest.approx(durations[row.optimizer] / durations[BASELINE])


def test_a_slow_spell_that_meets_both_leaves_the_ratio_alone() -> None:
    spell = np.array([1, 1, 1, 5, 5])
    slower = Blocks([*(2.0 * spell[:-1]), float("nan")])
    assert slower.ratio_to(Blocks(list(1.0 * spell))) == (2.0, 0.0)


def test_operations_and_memory_are_those_of_the_network() -> None:
    rows, inputs, hidden = 588, 8, 50
    make = baseline(ENERGY, ENERGY.minibatch(CPU))
    products = rows * (inputs * hidden + hidden)
    operations, traffic = count(make)
    # Forward, and backward for all weights and for the inputs of the last layer.
    assert operations == 2 * (2 * products + rows * hidden)
    activations = 4 * rows * hidden
    assert traffic > 6 * activations
    peaks = {peak_bytes(make, CPU) for _ in range(2)}
    assert len(peaks) == 1, "what other measurements leave behind does not count"
    assert 2 * activations < peaks.pop() < 6 * activations


@pytest.mark.parametrize(("optimizer", "most"), [("adam", 22), ("adamqlr", 45), ("kfac", 105)])
def test_small_steps_call_few_operators(optimizer: str, most: int) -> None:
    assert 0 < operator_calls(optimizer, CASE.minibatch(CPU)).total() <= most
