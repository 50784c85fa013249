"""Optimizers named in the configuration by an import path: they train, and to the numbers of a loop written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr.errors import UserError
from adamqlr.optim.qlr import QLR
from adamqlr.problems.problem import initial_model, load_problem
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, load_config
from adamqlr.study.limit import Limit
from adamqlr.training.optimizers import check_hyperparameters
from adamqlr.training.own_optimizers import load_class
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule

CPU = torch.device("cpu")
STEPS = 9
ConfigFile = Callable[..., Path]

SIGNS = Path(__file__).parents[2] / "docs" / "signs.py"
# An optimizer with the study's step in a file of somebody's own, beside the direction that the documentation shows.
OWN_FILE = """
import torch
from adamqlr.optim.info import GradientInfo
from adamqlr.optim.passes.given_loss import resolve_loss


class SignDescent(torch.optim.Optimizer):
    def __init__(self, model, loss, *, lr=0.01):
        super().__init__(model.parameters(), {"lr": lr})
        self.model, self.loss = model, resolve_loss(loss)

    def step(self, inputs, targets):
        self.zero_grad()
        loss = self.loss(self.model(inputs), targets)
        loss.backward()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter -= self.param_groups[0]["lr"] * parameter.grad.sign()
        return GradientInfo(loss.detach(), torch.tensor(self.param_groups[0]["lr"]))
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(SIGNS.read_text(encoding="utf-8") + OWN_FILE)
    return path


@pytest.fixture
def study_of(config_file: ConfigFile) -> Callable[..., StudyConfig]:
    def read(**optimizers: Any) -> StudyConfig:
        return load_config(config_file(datasets={"digits": {"epochs": 3}}, optimizers={"adam": {}, **optimizers}))

    return read


def make(study: StudyConfig, optimizer: str, **chosen: Any) -> Run:
    case = Case(study, "epochs", "digits", optimizer)
    hyperparameters = case.hyperparameters(chosen)
    check_hyperparameters(case, hyperparameters)
    return Run(load_problem("digits", study, CPU), RunSpec(case.spec, hyperparameters, 0), RecordSchedule(4, 1.5))


def trained(study: StudyConfig, optimizer: str, **chosen: Any) -> list[Tensor]:
    run = make(study, optimizer, **chosen)
    run.advance(Limit(steps=STEPS))
    return list(run.state_dict()["model"].values())


def by_hand(study: StudyConfig, step_of: Callable[[nn.Module], Callable[[Tensor, Tensor], Any]]) -> list[Tensor]:
    """Train the network of seed 0 on the batches of seed 0, without anything of the study's training."""
    problem, spec = load_problem("digits", study, CPU), RunSpec(study.spec("adam"), {}, 0)
    model = initial_model(problem, spec.derived_seed(0)).train()
    step, batches = step_of(model), problem.batches(200, spec.derived_seed(1))
    for _ in range(STEPS):
        step(*batches.gather(*batches.next_selection()))
    return [parameter.detach() for parameter in model.parameters()]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def plain_loop(optimizer_class: Any, **options: Any) -> Callable[[nn.Module], Callable[[Tensor, Tensor], None]]:
    def step_of(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
        optimizer = optimizer_class(model.parameters(), **options)

        def step(inputs: Tensor, targets: Tensor) -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

        return step

    return step_of


@pytest.mark.parametrize(
    ("path", "made"),
    [("torch.optim:NAdam", torch.optim.NAdam), ("torch.optim:RMSprop", torch.optim.RMSprop)],
)
def test_pytorchs_optimizers_train_to_the_numbers_of_a_plain_loop(
    study_of: Callable[..., StudyConfig], path: str, made: Any
) -> None:
    study = study_of(own={"optimizer": path, "options": {"eps": 1e-6}, "space": {"lr": {"loguniform": [1e-4, 1e-1]}}})
    assert_equal(trained(study, "own", lr=0.01), by_hand(study, plain_loop(made, eps=1e-6, lr=0.01)))


def test_heuristics_from_yaml_are_qlr_made_by_hand(study_of: Callable[..., StudyConfig]) -> None:
    study = study_of(
        own={
            "direction": "torch.optim:NAdam",
            "options": {"betas": [0.8, 0.99]},
            "heuristics": {"damping": 0.01, "momentum": None},
            "space": {"damping": {"loguniform": [1e-6, 1]}, "direction.eps": {"loguniform": [1e-8, 1e-2]}},
        }
    )

    def step_of(model: nn.Module) -> Any:
        nadam = torch.optim.NAdam(model.parameters(), betas=(0.8, 0.99), eps=1e-5)
        return QLR(model, "cross_entropy", nadam, damping=0.1, momentum=None).step

    # What was chosen comes before what is configured.
    assert_equal(trained(study, "own", damping=0.1, **{"direction.eps": 1e-5}), by_hand(study, step_of))
    assert set(study.space("own")) == {"damping", "direction.eps"}


def test_a_directions_own_learning_rate_leaves_the_heuristics_to_be_tuned(
    study_of: Callable[..., StudyConfig],
) -> None:
    sgd = {"direction": "torch.optim:SGD", "heuristics": {"damping": 0.0, "adapt_damping": False}}
    study = study_of(own={**sgd, "options": {"lr": 1.0}, "space": {"lr": {"loguniform": [1e-4, 1]}}})
    assert set(study.space("own")) == {"lr"}
    # With the learning rate fixed, and nothing adapted, QLR over SGD is SGD.
    found, expected = trained(study, "own", lr=0.05), by_hand(study, plain_loop(torch.optim.SGD, lr=0.05))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_class_of_a_file_is_an_optimizer(study_of: Callable[..., StudyConfig], own_file: Path) -> None:
    study = study_of(own={"optimizer": f"{own_file}:SignDescent", "options": {"lr": 0.003}})

    def step_of(model: nn.Module) -> Callable[[Tensor, Tensor], None]:
        def step(inputs: Tensor, targets: Tensor) -> None:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.sub_(0.003 * gradient.sign())

        return step

    assert_equal(trained(study, "own"), by_hand(study, step_of))


def beta_of(run: Run) -> float:
    optimizer = run._optimizer
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer.param_groups[0]["beta"]


def test_a_class_of_a_file_is_a_direction(study_of: Callable[..., StudyConfig], own_file: Path) -> None:
    direction = {"direction": f"{own_file}:Signs", "options": {"beta": 0.5}}
    run = make(study_of(own=direction), "own")
    run.advance(Limit(steps=STEPS))
    assert beta_of(run) == 0.5
    losses = run.history.metric("train_loss")[1:]
    assert losses[-1] < 0.8 * losses[0]
    # An option of the direction, chosen by tuning, reaches it and changes what is trained.
    other = make(study_of(own=direction), "own", **{"direction.beta": 0.0})
    other.advance(Limit(steps=STEPS))
    assert beta_of(other) == 0.0
    assert other.history.metric("train_loss")[-1] != losses[-1]


def test_an_option_chosen_by_hand_that_nobody_knows(study_of: Callable[..., StudyConfig]) -> None:
    study = study_of(own={"direction": "torch.optim:NAdam"})
    with pytest.raises(UserError, match=r"optimizer 'own': unknown hyperparameter 'direction\.lrr': known are lr, "):
        make(study, "own", **{"direction.lrr": 1})
    named = study_of(own={"direction": "adam"})
    with pytest.raises(UserError, match=r"optimizer 'own': unknown hyperparameter 'direction\.eps'"):
        make(named, "own", **{"direction.eps": 1e-3})


def test_what_cannot_be_trained_with_says_why(study_of: Callable[..., StudyConfig]) -> None:
    for name, reason in (("LBFGS", "its step evaluates a closure"), ("SparseAdam", "it needs sparse gradients")):
        with pytest.raises(UserError, match=f"optimizer 'own': {name} cannot be trained with: {reason}"):
            make(study_of(own={"optimizer": f"torch.optim:{name}"}), "own")
    with pytest.raises(UserError, match="optimizer 'own': LBFGS cannot be a direction: its step evaluates a closure"):
        make(study_of(own={"direction": "torch.optim:LBFGS"}), "own")


def test_a_class_that_is_no_optimizer_is_named(study_of: Callable[..., StudyConfig], tmp_path: Path) -> None:
    (tmp_path / "no.py").write_text("class Descent:\n    def __init__(self, params): ...\n")
    with pytest.raises(UserError, match=r"no\.py:Descent makes a Descent, which is no torch\.optim\.Optimizer"):
        make(study_of(own={"optimizer": f"{tmp_path}/no.py:Descent"}), "own")


@pytest.mark.parametrize(
    "own",
    [
        {"optimizer": "torch.optim:NAdam", "options": {"lr": 0.01}},
        {"direction": "torch.optim:NAdam", "heuristics": {"momentum": None}},
        {"direction": "FILE:Signs"},
        {"optimizer": "FILE:SignDescent"},
    ],
    ids=["optimizer", "wrapped", "direction of a file", "optimizer of a file"],
)
def test_a_killed_run_goes_on_to_the_same_numbers(
    study_of: Callable[..., StudyConfig], own_file: Path, own: dict[str, Any]
) -> None:
    own = {k: v.replace("FILE", str(own_file)) if isinstance(v, str) else v for k, v in own.items()}
    study = study_of(own=own)
    whole = make(study, "own")
    whole.advance(Limit(steps=STEPS))
    first = make(study, "own")

    def die_at_step_four() -> None:
        if first.step == 4:
            torch.save(first.state_dict(), own_file.with_suffix(".pt"))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.advance(Limit(steps=STEPS), die_at_step_four)
    second = make(study, "own")
    second.load_state_dict(torch.load(own_file.with_suffix(".pt"), weights_only=True))
    second.advance(Limit(steps=STEPS))
    assert_equal(list(second.state_dict()["model"].values()), list(whole.state_dict()["model"].values()))
    assert second.history.metric("train_loss")[1:].tolist() == whole.history.metric("train_loss")[1:].tolist()


def test_an_optimizer_of_another_package(study_of: Callable[..., StudyConfig]) -> None:
    package = pytest.importorskip("pytorch_optimizer")
    study = study_of(
        lion={"optimizer": "pytorch_optimizer:Lion", "options": {"lr": 1e-3}},
        lion_qlr={"direction": "pytorch_optimizer:Lion"},
    )
    assert_equal(trained(study, "lion"), by_hand(study, plain_loop(package.Lion, lr=1e-3)))

    def step_of(model: nn.Module) -> Any:
        return QLR(model, "cross_entropy", package.Lion(model.parameters())).step

    assert_equal(trained(study, "lion_qlr"), by_hand(study, step_of))


def test_a_direction_that_takes_any_keyword_may_have_options(
    study_of: Callable[..., StudyConfig], tmp_path: Path
) -> None:
    file = tmp_path / "open.py"
    file.write_text(
        "import torch\n\n\nclass Open(torch.optim.SGD):\n"
        "    def __init__(self, params, **options):\n        super().__init__(params, **options)\n"
    )
    study = study_of(own={"direction": f"{file}:Open", "options": {"lr": 1.0, "momentum": 0.9}})

    def step_of(model: nn.Module) -> Any:
        return QLR(model, "cross_entropy", torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)).step

    assert_equal(trained(study, "own"), by_hand(study, step_of))
    with pytest.raises(UserError, match=r"unknown hyperparameter 'dampng': known are lr, .*direction\.\*$"):
        make(study, "own", dampng=0.1)


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(f"class Mine:\n    folder = {folder!r}\n")
    assert [load_class(f"{tmp_path / folder / 'own.py'}:Mine").folder for folder in ("a", "b")] == ["a", "b"]


def test_a_file_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("class Mine:\n    pass\n\n\n1 / 0\n")
    # Nor is half of it kept.
    for _ in range(2):
        with pytest.raises(UserError, match=r"own\.py:Mine: cannot be imported: ZeroDivisionError in line 5: division"):
            load_class(f"{file}:Mine")
