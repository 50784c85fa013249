"""Captured steps: what is recorded, repeated and fallen back from; on a GPU, the same numbers as eager ones."""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC
from adamqlr.optim.adam import Adam
from adamqlr.problems.problem import load_problem
from adamqlr.study.config import StudyConfig
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.capture import CapturedStep, CudaRecorder
from adamqlr.training.cpu_graph import CpuRecorder
from adamqlr.training.optimizers import make_optimizer
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule

CPU = torch.device("cpu")
SCHEDULE = RecordSchedule(4, 1.5)
# Batches of 200 rows, and a smaller last one.
STEPS = 30
HYPERPARAMETERS: dict[str, dict[str, float]] = {
    "sgd_minimal": {"lr": 0.05},
    "sgd_full": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"lr": 0.01},
    "adam_eps": {"lr": 0.01, "eps": 1e-3},
    "adamqlr": {"lr_clipping": 0.1},
    "adamqlr_hessian": {"damping": 0.5},
    "kfac_unadaptive": {"lr": 1e-3, "momentum": 0.9, "damping": 0.1},
    "baydin_sgd": {"lr": 0.01, "hypergradient_lr": 1e-4},
}


class Repeater:
    """A recorder for machines without CUDA: what it records, it calls again, with the tensors it was recorded with."""

    def __init__(self) -> None:
        self.recorded = 0

    def warm_up(self, step: Callable[[], Any]) -> Any:
        return step()

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        self.recorded += 1
        return step


def test_tensors_of_each_shape_are_recorded_once_and_copied_in() -> None:
    recorder = Repeater()
    seen: list[Tensor] = []
    paused: list[str] = []

    @contextmanager
    def off_clock() -> Any:
        paused.append("capture")
        yield

    def total(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum()

    step = CapturedStep(total, recorder, off_clock)
    for value in range(6):
        for size in (4, 2):
            assert float(step(torch.full((size,), float(value)))) == value * size
    assert recorder.recorded == len(paused) == 2
    assert len({x.data_ptr() for x in seen[6::2]}) == 1, "a graph reads where it was captured"


class CountedRecorder(CpuRecorder):
    """Counts what it records."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        replay = super().record(step)
        self.recorded += 1
        return replay


@pytest.mark.parametrize(
    ("dataset", "make_recorder"), [("digits", CountedRecorder), ("digits", Repeater), ("rosenbrock", Repeater)]
)
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_recorded_runs_have_the_numbers_of_eager_ones(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, dataset: str, make_recorder: Any, optimizer: str
) -> None:
    problem = load_problem(dataset, study, CPU)
    spec = RunSpec(OPTIMIZERS[optimizer], {"batch_size": 200, **HYPERPARAMETERS.get(optimizer, {})}, seed=1)
    monkeypatch.setattr("adamqlr.training.run.fastest_step", lambda step, *_: step)
    eager = Run(problem, spec, SCHEDULE)
    eager.advance(Limit(steps=STEPS))
    recorder = make_recorder()
    monkeypatch.setattr(
        "adamqlr.training.run.fastest_step",
        lambda step, model, device, capturable, off_clock: CapturedStep(step, recorder, off_clock),
    )
    recorded = Run(problem, spec, SCHEDULE)
    recorded.advance(Limit(steps=STEPS // 2))
    recorded.advance(Limit(steps=STEPS))
    assert recorder.recorded >= 1
    common = [eager.history.steps.index(step) for step in recorded.history.steps if step in eager.history.steps]
    np.testing.assert_array_equal(
        np.asarray(recorded.history.values)[[recorded.history.steps.index(eager.history.steps[i]) for i in common]],
        np.asarray(eager.history.values)[common],
    )


def test_what_cannot_be_captured_goes_on_eagerly_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Repeater):
        def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
            raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    step = CapturedStep(lambda x: x + 1, Refusing())
    with caplog.at_level(logging.INFO, logger="adamqlr"):
        assert [float(step(torch.tensor(float(n)))) for n in range(8)] == [n + 1.0 for n in range(8)]
    assert [record.getMessage() for record in caplog.records] == [
        "steps are not captured: operation not permitted when stream is capturing"
    ]


def test_k_fac_with_rare_inversions_is_not_captured() -> None:
    for period in (1, 5):
        optimizer = make_optimizer(OPTIMIZERS["kfac"], nn.Linear(3, 2), "half_mse", {"inverse_period": period})
        assert isinstance(optimizer, KFAC)
        assert optimizer.capturable == (period == 1)


def run_on_cuda(study: StudyConfig, spec: RunSpec, dataset: str, captured: bool, monkeypatch: Any) -> Run:
    if not captured:
        monkeypatch.setattr("adamqlr.training.run.fastest_step", lambda step, *_: step)
    run = Run(load_problem(dataset, study, torch.device("cuda")), spec, SCHEDULE)
    run.advance(Limit(steps=STEPS))
    monkeypatch.undo()
    return run


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_graphs_have_the_numbers_of_eager_steps(
    study: StudyConfig, optimizer: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = RunSpec(OPTIMIZERS[optimizer], {"batch_size": 200, **HYPERPARAMETERS.get(optimizer, {})}, seed=1)
    with caplog.at_level(logging.INFO, logger="adamqlr"):
        captured = run_on_cuda(study, spec, "digits", True, monkeypatch)
    assert "not captured" not in caplog.text
    eager = run_on_cuda(study, spec, "digits", False, monkeypatch)
    assert captured.history.steps == eager.history.steps
    np.testing.assert_allclose(captured.history.values, eager.history.values, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
def test_packs_have_the_numbers_of_separate_runs_on_cuda(study: StudyConfig) -> None:
    problem = load_problem("digits", study, torch.device("cuda"))
    specs = [RunSpec(OPTIMIZERS["adamqlr"], {"batch_size": 200, "damping": 0.01}, seed) for seed in range(3)]
    pack = Run(problem, specs, SCHEDULE, step_seconds=0.1)
    pack.advance(Limit(steps=STEPS))
    for spec, history in zip(specs, pack.histories, strict=True):
        alone = Run(problem, spec, SCHEDULE)
        alone.advance(Limit(steps=STEPS))
        np.testing.assert_allclose(history.metric("test_loss"), alone.history.metric("test_loss"), rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adam", "adamqlr", "kfac"])
def test_convolutional_networks_are_captured(optimizer: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).cuda()
    stepper = make_optimizer(OPTIMIZERS[optimizer], model, "cross_entropy", {"lr": 1e-3} if optimizer == "adam" else {})
    inputs: Tensor = torch.randn(64, 3, 12, 12, device="cuda")
    targets = torch.randint(4, (64,), device="cuda")
    step = CapturedStep(stepper.step, CudaRecorder())
    with caplog.at_level(logging.INFO, logger="adamqlr"):
        losses = [float(step(inputs, targets).loss) for _ in range(40)]
    assert "not captured" not in caplog.text
    assert losses[-1] < losses[0]


class CountingAdam(Adam):
    """Somebody's own: it counts its steps in Python."""

    steps = 0

    def _take_step(self, inputs: Any, targets: Any) -> Any:
        self.steps += 1
        return super()._take_step(inputs, targets)


def test_optimizers_of_ones_own_are_not_captured() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    assert Adam(model, "half_mse").capturable
    assert not CountingAdam(model, "half_mse").capturable


@pytest.mark.parametrize("key", ["adamqlr", "kfac", "adam"])
def test_packs_are_recorded_to_the_numbers_of_eager_ones(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    problem = load_problem("digits", study, CPU)
    specs = [RunSpec(OPTIMIZERS[key], {"batch_size": 200, **HYPERPARAMETERS.get(key, {})}, seed) for seed in range(3)]
    recorded = Run(problem, specs, SCHEDULE, step_seconds=0.1)
    assert isinstance(recorded._take_step, CapturedStep)
    with caplog.at_level(logging.INFO, logger="adamqlr"):
        recorded.advance(Limit(steps=STEPS))
    assert "not captured" not in caplog.text
    monkeypatch.setattr("adamqlr.training.run.fastest_step", lambda step, *_: step)
    eager = Run(problem, specs, SCHEDULE, step_seconds=0.1)
    eager.advance(Limit(steps=STEPS))
    for ours, theirs in zip(recorded.histories, eager.histories, strict=True):
        np.testing.assert_array_equal(np.asarray(ours.values), np.asarray(theirs.values))
