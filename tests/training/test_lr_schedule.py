"""Learning-rate schedules named in the configuration: the rate at each step, resumption, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adamqlr.errors import UserError
from adamqlr.optim.sgd import SGD
from adamqlr.problems.problem import load_problem
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.limit import Limit
from adamqlr.training.capture import CapturedStep
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule

CPU = torch.device("cpu")
# Batches of 200 rows of digits: 7 steps an epoch, the last of which is smaller.
EPOCH, STEPS = 7, 24
MODULE = "torch.optim.lr_scheduler"
STEP_LR = {"scheduler": f"{MODULE}:StepLR", "options": {"step_size": 2, "gamma": 0.5}}
SGD_LR = {"optimizer": "torch.optim:SGD", "options": {"lr": 0.2, "momentum": 0.9}}
FILE = """
import torch

class Halving(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer, after=1):
        self.after = after
        super().__init__(optimizer)

    def get_lr(self):
        factor = 0.5 if self.last_epoch == self.after else 1
        return [factor * group["lr"] for group in self.optimizer.param_groups]
"""


def study_of(optimizers: dict[str, Any], **changes: Any) -> StudyConfig:
    settings = {"name": "t", "device": "cpu", "datasets": {"digits": {}}, "optimizers": optimizers, **changes}
    return parse_config(settings, "study.yaml")


def case_of(key: str, optimizer: dict[str, Any], **changes: Any) -> Case:
    return Case(study_of({key: optimizer}, **changes), "epochs", "digits", key)


def make(case: Case, **chosen: Any) -> Run:
    hyperparameters = case.hyperparameters(chosen)
    return Run(
        load_problem("digits", case.study, CPU), RunSpec(case.spec, hyperparameters, 0), RecordSchedule(STEPS, 2)
    )


def rates(case: Case, **chosen: Any) -> np.ndarray:
    """Return the learning rate of each step."""
    run = make(case, **chosen)
    assert run.steps_per_epoch == EPOCH
    run.advance(Limit(steps=STEPS))
    return np.asarray(run.history.metric("lr")[1:])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (STEP_LR, lambda step: 0.5 ** (step // EPOCH // 2)),
        ({**STEP_LR, "per": "step"}, lambda step: 0.5 ** (step // 2)),
        (
            {"scheduler": f"{MODULE}:CosineAnnealingLR", "options": {"T_max": 40}, "per": "step"},
            lambda step: (1 + np.cos(np.pi * step / 40)) / 2,
        ),
        # From a start that is not the optimizer's own rate.
        (
            {"scheduler": f"{MODULE}:LinearLR", "options": {"start_factor": 0.25, "total_iters": 10}, "per": "step"},
            lambda step: 0.25 + 0.75 * np.minimum(step, 10) / 10,
        ),
    ],
    ids=["epochs", "steps", "cosine", "warm-up"],
)
@pytest.mark.parametrize(
    ("key", "optimizer", "rate"),
    [
        ("own", SGD_LR, 0.2),
        ("sgd_minimal", {"options": {"lr": 0.2}}, 0.2),
        ("adam_untuned", {}, 1e-3),
        ("qlr", {"direction": "adam", "heuristics": {"lr": 0.01, "damping": 0.0, "adapt_damping": False}}, 0.01),
    ],
    ids=["by path", "SGD", "Adam", "QLR with a fixed rate"],
)
def test_each_step_has_the_rate_of_the_closed_form(
    key: str, optimizer: dict[str, Any], rate: float, schedule: dict[str, Any], expected: Callable[[Any], Any]
) -> None:
    found = rates(case_of(key, {**optimizer, "schedule": schedule}))
    np.testing.assert_allclose(found, rate * expected(np.arange(STEPS)), rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "optimizer"),
    [("adamqlr_untuned", {}), ("qlr_nadam", {"direction": "torch.optim:NAdam"}), ("kfac_untuned", {})],
)
def test_under_heuristics_the_rate_is_a_factor_of_the_chosen_one(key: str, optimizer: dict[str, Any]) -> None:
    plain = rates(case_of(key, optimizer), batch_size=200)
    scheduled = rates(case_of(key, {**optimizer, "schedule": {**STEP_LR, "options": {"step_size": 1}}}), batch_size=200)
    # Up to the first boundary both are the same run, and there they propose the same step.
    np.testing.assert_array_equal(scheduled[:EPOCH], plain[:EPOCH])
    np.testing.assert_allclose(scheduled[EPOCH], 0.1 * plain[EPOCH], rtol=1e-5)


def test_it_trains_as_a_loop_written_by_hand() -> None:
    case = case_of("own", {**SGD_LR, "schedule": {**STEP_LR, "per": "step"}})
    run, other = make(case), make(case)
    run.advance(Limit(steps=STEPS))
    model, batches = other._model, other._batches
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    for _ in range(STEPS):
        inputs, targets = batches.gather(*batches.next_selection())
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        scheduler.step()
    for ours, theirs in zip(run.state_dict()["model"].values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


ONE_CYCLE = {"scheduler": f"{MODULE}:OneCycleLR", "options": {"max_lr": 0.5, "total_steps": 30}, "per": "step"}


@pytest.mark.parametrize(
    ("key", "optimizer"),
    [
        ("own", {**SGD_LR, "schedule": STEP_LR}),
        ("sgd_minimal", {"options": {"lr": 0.2}, "schedule": ONE_CYCLE}),
        ("adam_untuned", {"schedule": ONE_CYCLE}),
        ("adamqlr_untuned", {"schedule": {**STEP_LR, "options": {"step_size": 1}}}),
        ("qlr_nadam", {"direction": "torch.optim:NAdam", "schedule": ONE_CYCLE}),
        ("halved", {**SGD_LR, "schedule": {"scheduler": "FILE:Halving", "options": {"after": 2}}}),
    ],
)
@pytest.mark.parametrize("stop", [EPOCH, EPOCH + 3])
def test_a_killed_run_goes_on_to_the_same_numbers(
    key: str, optimizer: dict[str, Any], stop: int, tmp_path: Path
) -> None:
    own = tmp_path / "own.py"
    own.write_text(FILE)
    scheduler = optimizer["schedule"]["scheduler"].replace("FILE", str(own))
    case = case_of(key, {**optimizer, "schedule": {**optimizer["schedule"], "scheduler": scheduler}})
    whole, first, second = (make(case, batch_size=200) for _ in range(3))
    whole.advance(Limit(steps=STEPS))

    def die() -> None:
        if first.step == stop:
            torch.save(first.state_dict(), tmp_path / "run.pt")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.advance(Limit(steps=STEPS), die)
    second.load_state_dict(torch.load(tmp_path / "run.pt", weights_only=True))
    second.advance(Limit(steps=STEPS))
    for name in ("lr", "train_loss", "test_loss"):
        np.testing.assert_array_equal(second.history.metric(name), whole.history.metric(name))
    for ours, theirs in zip(*(run.state_dict()["model"].values() for run in (second, whole)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_momentum_that_a_scheduler_cycles_is_pytorchs() -> None:
    inputs, targets = torch.randn(20, 4), torch.randn(20, 2)
    ours, theirs = nn.Linear(4, 2), nn.Linear(4, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer, reference = SGD(ours, nn.MSELoss(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=8) for o in (optimizer, reference)]
    for step in range(8):
        optimizer.step(inputs, targets)
        reference.zero_grad()
        nn.functional.mse_loss(theirs(inputs), targets).backward()
        reference.step()
        if step < 7:
            for scheduler in schedulers:
                scheduler.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_scheduled_steps_are_neither_captured_nor_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fastest_step(step: Any, model: Any, device: Any, capturable: bool, off_clock: Any) -> Any:
        asked.append(capturable)
        return step

    monkeypatch.setattr("adamqlr.training.run.fastest_step", fastest_step)
    plain, scheduled = (
        case_of("adam_untuned", own, training={"pack": "always"}) for own in ({}, {"schedule": STEP_LR})
    )
    make(plain)
    make(scheduled)
    assert asked == [True, False]
    assert plain.can_pack
    assert not scheduled.can_pack


@pytest.mark.gpu
def test_on_a_gpu_the_rate_of_each_step_is_the_schedules() -> None:
    case = case_of("adam_untuned", {"schedule": {**STEP_LR, "per": "step"}})
    spec = RunSpec(case.spec, case.hyperparameters({}), 0)
    runs = [
        Run(load_problem("digits", case.study, torch.device(device)), spec, RecordSchedule(4, 2))
        for device in ("cuda", "cpu")
    ]
    for run in runs:
        assert not isinstance(run._take_step, CapturedStep)
        run.advance(Limit(steps=STEPS))
    on_gpu, on_cpu = (run.history.metric("test_loss") for run in runs)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3)


def test_only_scheduled_runs_have_another_fingerprint() -> None:
    plain, scheduled, other = (
        case_of("adam", own)
        for own in ({}, {"schedule": STEP_LR}, {"schedule": {**STEP_LR, "options": {"step_size": 3}}})
    )
    for kind in (lambda case: case.training_fingerprint({}, [0]), lambda case: case.search_fingerprint()):
        assert len({kind(case) for case in (plain, scheduled, other)}) == 3
    before = plain.study.model_copy(update={"optimizers": {"adam": type(plain.study.optimizer("adam"))()}})
    assert Case(before, "epochs", "digits", "adam").search_fingerprint() == plain.search_fingerprint()


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ({"scheduler": "torch.optim.lr_schedule:StepLR"}, "no module 'torch.optim.lr_schedule' in the package 'torch'"),
        ({"scheduler": f"{MODULE}:StepLr"}, f"'{MODULE}:StepLr': {MODULE} has no StepLr"),
        ({"scheduler": "StepLR"}, "'StepLR': expected module:Name"),
        ({**STEP_LR, "options": {"step": 2}}, "options: unknown option 'step': known are gamma, last_epoch, step_size"),
        ({**STEP_LR, "options": {"optimizer": 2}}, "options: unknown option 'optimizer'"),
        ({**STEP_LR, "per": "second"}, "Input should be 'epoch' or 'step'"),
        ({**STEP_LR, "every": 2}, "unknown key"),
    ],
)
def test_mistakes_are_named_as_the_configuration_is_read(schedule: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as raised:
        case_of("adam", {"schedule": schedule})
    assert str(raised.value).startswith("study.yaml: optimizers.adam.schedule")
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "optimizer", "schedule", "problem"),
    [
        ("adam_untuned", {}, {**STEP_LR, "options": {}}, rf"schedule {MODULE}:StepLR: .*missing.*'step_size'"),
        ("adam_untuned", {}, {**STEP_LR, "options": {"step_size": 2, "last_epoch": 3}}, "schedule .*initial_lr"),
        ("adam_untuned", {}, {"scheduler": f"{MODULE}:ReduceLROnPlateau"}, "its step needs metrics: choose one that"),
        ("baydin_sgd", {}, STEP_LR, "BaydinSGD cannot have a schedule: it has no lr, or moves it by itself"),
        ("own", {"optimizer": "FILE:Bare"}, STEP_LR, r"Bare cannot have a schedule: it is no torch\.optim\.Optimizer"),
    ],
)
def test_what_cannot_be_right_is_refused_before_the_first_step(
    key: str, optimizer: dict[str, Any], schedule: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    bare = "class Bare:\n    def __init__(self, model, loss):\n        pass\n"
    (tmp_path / "own.py").write_text(bare)
    optimizer = {name: value.replace("FILE", str(tmp_path / "own.py")) for name, value in optimizer.items()}
    case = case_of(key, {**optimizer, "schedule": schedule})
    chosen = {"lr": 0.1, "hypergradient_lr": 0.1} if key == "baydin_sgd" else {}
    with pytest.raises(UserError, match=f"^optimizer '{key}': .*{problem}") as raised:
        make(case, **chosen)
    assert "\n" not in str(raised.value)


def test_a_stored_study_needs_no_scheduler_any_more() -> None:
    stored = study_of({"adam": {"schedule": STEP_LR}}).model_dump(mode="json")
    stored["optimizers"]["adam"]["schedule"]["scheduler"] = "lost.py:Halving"
    assert parse_config(stored, "stored", may_lack_code=True, is_complete=True).optimizer("adam").schedule is not None
    with pytest.raises(UserError, match="no such file"):
        parse_config(stored, "study.yaml")
