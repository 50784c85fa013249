"""One run: what it records, where it ends, and that pieces of it add up to the whole."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adamqlr.problems.problem import Problem, initial_model, load_problem
from adamqlr.problems.rows import Rows
from adamqlr.study.config import StudyConfig, load_config
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.evaluation import evaluate
from adamqlr.training.metrics import METRICS
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from tests.problems.in_memory import parts_of

CPU = torch.device("cpu")
SCHEDULE = RecordSchedule(4, 1.5)


def make(study: StudyConfig, dataset: str = "digits", optimizer: str = "adamqlr", seed: int = 0, **options: Any) -> Run:
    problem = load_problem(dataset, study, CPU)
    return Run(problem, RunSpec(OPTIMIZERS[optimizer], {"batch_size": 200, **options}, seed), SCHEDULE)


def numbers(run: Run) -> list[list[float]]:
    return run.history.values


def test_recorded_steps_follow_the_schedule_and_end_with_the_last(study: StudyConfig) -> None:
    run = make(study)
    run.advance(Limit(steps=18))
    assert run.history.steps == [0, 1, 2, 3, 4, 6, 9, 14, 18]
    assert all(earlier <= later for earlier, later in zip(run.history.times, run.history.times[1:], strict=False))


def test_records_are_the_quantities_they_are_named_for(study: StudyConfig) -> None:
    problem = load_problem("digits", study, CPU)
    spec = RunSpec(OPTIMIZERS["adamqlr"], {"batch_size": 3200}, seed=3)
    run = Run(problem, spec, RecordSchedule(1, 1.5))
    model = initial_model(problem, spec.derived_seed(0))
    run.advance(Limit(steps=1))
    value = {name: run.history.metric(name) for name in METRICS}
    train, _, test = parts_of(problem)
    outputs = model(train.inputs)
    loss = nn.functional.cross_entropy(outputs, train.targets)
    gradients = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    accuracy = (outputs.argmax(1) == train.targets).double().mean()
    assert value["train_loss"][1] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert value["train_accuracy"][1] == pytest.approx(float(accuracy))
    assert value["grad_norm"][1] == pytest.approx(float(gradients.norm()), rel=1e-4)
    # Adam's first direction has elements ±1, less where ε matters.
    assert value["update_norm"][1] == pytest.approx(value["lr"][1] * np.sqrt(len(gradients)), rel=0.1)
    initial = nn.functional.cross_entropy(model(test.inputs), test.targets)
    assert value["test_loss"][0] == pytest.approx(float(initial.detach()), rel=1e-5)
    assert np.isnan(value["train_loss"][0])


def test_a_run_in_pieces_through_saved_states_is_the_whole_run(study: StudyConfig) -> None:
    whole = make(study, damping=0.01)
    whole.advance(Limit(steps=18))
    states: list[dict[str, Any]] = []
    for stop in (5, 11, None):
        part = make(study, damping=0.01)
        if states:
            part.load_state_dict(states[-1])

        def save_and_stop(part: Run = part, stop: int | None = stop) -> None:
            if part.step == stop:
                states.append(copy.deepcopy(part.state_dict()))
                raise InterruptedError

        with nullcontext() if stop is None else pytest.raises(InterruptedError):
            part.advance(Limit(steps=18), save_and_stop)
    np.testing.assert_array_equal(numbers(part), numbers(whole))
    assert part.history.steps == whole.history.steps


def test_a_small_network_is_no_trajectory(config_file: Callable[..., Path], tmp_path: Path) -> None:
    table = tmp_path / "line.csv"
    table.write_text("x,y\n" + "".join(f"{i},{2 * i + 1}\n" for i in range(60)))
    line = {"path": str(table), "loss": "half_mse", "hidden": [], "epochs": 1, "batch_size": 10}
    run = make(load_config(config_file(datasets={"line": line})), "line", "adam_untuned", batch_size=10)
    run.advance(Limit(steps=2))
    assert run.history.parameters == []


def test_a_run_on_the_cpu_leaves_devices_alone(study: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a checkpoint was written beside two devices, and one of them is visible now."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    run = make(study)
    run.advance(Limit(steps=1))
    state = run.state_dict()
    assert "cuda_rng" not in state
    run.load_state_dict({**state, "cuda_rng": [torch.zeros(16, dtype=torch.uint8)] * 2})


def test_seeds_decide_everything(study: StudyConfig) -> None:
    runs = [make(study, optimizer="adam_untuned", seed=seed) for seed in (0, 0, 1)]
    for run in runs:
        run.advance(Limit(steps=8))
    np.testing.assert_array_equal(numbers(runs[0]), numbers(runs[1]))
    assert not np.array_equal(numbers(runs[0]), numbers(runs[2]))


def test_tuning_and_training_use_different_random_numbers() -> None:
    final, tuning = RunSpec(OPTIMIZERS["adam"], {}, 0), RunSpec(OPTIMIZERS["adam"], {}, 0, tuning=True)
    seeds = {spec.derived_seed(purpose) for spec in (final, tuning) for purpose in range(3)}
    assert len(seeds) == 6


def test_a_diverging_run_ends_early_and_says_so(study: StudyConfig) -> None:
    run = make(study, "diabetes", "sgd_full", lr=1e6, momentum=0.0, weight_decay=0.0)
    run.advance(Limit(steps=500))
    assert run.diverged
    assert run.step < 500
    assert run.history.steps[-1] == run.step
    assert run.objectives("validation_loss") == [float("inf")]
    records = len(run.history.steps)
    run.advance(Limit(steps=1000))
    assert len(run.history.steps) == records


def test_seconds_limit_a_run(study: StudyConfig) -> None:
    run = make(study, optimizer="adam_untuned")
    run.advance(Limit(seconds=0.2))
    assert 0.2 <= run.seconds < 1.0
    assert run.history.times[-1] >= 0.2
    assert run.fraction_of(Limit(seconds=0.2)) == 1.0


def test_evaluation_is_in_chunks_and_leaves_the_mode_alone() -> None:
    model = nn.Sequential(nn.Linear(2000, 3), nn.Dropout(0.5)).train()
    rows = Rows(torch.randn(4500, 2000), torch.randint(3, (4500,)))
    from adamqlr.optim.passes.losses import CrossEntropy

    (loss,), (accuracy,) = evaluate(model, CrossEntropy(), rows, with_accuracy=True)
    outputs = model.eval()(rows.inputs)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(outputs, rows.targets).detach()), rel=1e-5)
    assert accuracy == pytest.approx(float((outputs.argmax(1) == rows.targets).double().mean()))
    model.train()
    evaluate(model, CrossEntropy(), rows, with_accuracy=False)
    assert model.training


def test_recording_leaves_batch_normalization_alone() -> None:
    rows = Rows(torch.randn(40, 3), torch.randint(2, (40,)))

    def build() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))

    problem = Problem("cross_entropy", rows, rows, rows, build)
    spec = RunSpec(OPTIMIZERS["adam_untuned"], {"batch_size": 10}, 0)
    often, rarely = (Run(problem, spec, schedule) for schedule in (RecordSchedule(50, 2), RecordSchedule(1, 100)))
    for run in (often, rarely):
        run.advance(Limit(steps=20))
    assert len(often.history.steps) > len(rarely.history.steps)
    np.testing.assert_array_equal(numbers(often)[-1], numbers(rarely)[-1])
