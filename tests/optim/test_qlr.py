"""QLR against its equations with dense matrices, over directions of PyTorch's, of this package's and of one's own."""

import copy
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, QLR, AdamQLR, Direction
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.sgd import SGD
from adamqlr.optim.state import State
from tests.optim.test_adamqlr_dense import DenseAdamQLR, mlp, perceptron, task

STEPS = 6
TOLERANCE = 1e-9
Propose = Callable[[Tensor, Tensor], Tensor]


class DenseQLR(DenseAdamQLR):
    """The heuristics on a flat θ with an explicit curvature matrix, along what ``propose`` makes of θ and g."""

    def __init__(
        self,
        model: nn.Module,
        loss: str,
        curvature: str,
        propose: Propose,
        *,
        lr: float | None = None,
        momentum: float | None = 0.0,
        factors: Tensor | None = None,
        decays: Tensor | float = 0.0,
        max_damping: float = float("inf"),
        **options: Any,
    ) -> None:
        super().__init__(model, loss, curvature, **options)
        self.propose, self.lr, self.momentum, self.max_damping = propose, lr, momentum, max_damping
        self.factors = torch.ones_like(self.theta) if factors is None else factors
        self.decays, self.update = decays, torch.zeros_like(self.theta)

    def step(self, inputs: Tensor, targets: Tensor) -> dict[str, float]:
        theta = self.theta.clone().requires_grad_()
        value = self.value(theta, inputs, targets)
        (gradient,) = torch.autograd.grad(value, theta)
        loss, largest = value.detach(), self.factors.max()
        directions = [self.propose(self.theta, gradient) * self.factors / largest]
        if self.momentum != 0:
            directions.append(self.update)
        together = torch.stack(directions, dim=1)
        damped = self.matrix(inputs, targets) + self.damping * torch.eye(len(theta), dtype=theta.dtype)
        matrix, slopes = together.T @ damped @ together, together.T @ gradient
        weights = theta.new_tensor([-(self.lr or 0.0), self.momentum or 0.0][: len(directions)])
        free = [k for k, fixed in enumerate([self.lr, self.momentum][: len(directions)]) if fixed is None]
        free = [k for k in free if slopes[k] != 0 or matrix[k, k] != 0]
        if free:
            right = -(slopes + matrix @ weights)[free]
            weights[free] = torch.linalg.solve(matrix[free][:, free], right)
        if self.lr is None:
            weights[0] *= largest
            if 1 in free:
                # The whole step is as much shorter as the groups make the learning rate.
                weights[1] *= largest
        update = together @ weights
        model_change = slopes @ weights + 0.5 * weights @ matrix @ weights
        true_change = self.value(self.theta + update, inputs, targets) - loss
        rho = true_change / model_change
        self.theta, self.update = self.theta + update - self.decays * self.theta, update
        if rho > 0.75:
            self.damping *= self.damping_decrease
        elif rho < 0.25:
            self.damping *= self.damping_increase
        self.damping = min(max(self.damping, 1e-8), self.max_damping)
        return {
            "loss": float(loss),
            "lr": -float(weights[0]),
            "curvature": float(matrix[0, 0]),
            "grad_dot_direction": float(slopes[0]),
            "damping": self.damping,
            "rho": float(rho),
            "model_change": float(model_change),
            "true_change": float(true_change),
            "momentum": float(weights[1]) if len(directions) > 1 else 0.0,
        }


def biasless(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, outputs, bias=False))


NETWORKS = {"mlp": mlp, "perceptron": perceptron, "biasless": biasless}

# Each direction twice: as QLR takes it, and as a formula of the papers on θ and g.


def gradient_of(model: nn.Module) -> Propose:
    return lambda theta, gradient: gradient


def sgd_of(model: nn.Module) -> Propose:
    buffer = torch.zeros(())

    def propose(theta: Tensor, gradient: Tensor) -> Tensor:
        nonlocal buffer
        buffer = 0.9 * buffer + gradient
        return 0.1 * buffer

    return propose


def nadam_of(model: nn.Module) -> Propose:
    """Dozat (2016), algorithm 8, with the decay of momentum that PyTorch documents."""
    # PyTorch keeps the product of the momenta in single precision whatever the parameters are in.
    moments, step, product = [torch.zeros(()), torch.zeros(())], 0, torch.ones((), dtype=torch.float32)

    def propose(theta: Tensor, gradient: Tensor) -> Tensor:
        nonlocal step, product
        step += 1
        now, then = (0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in (step, step + 1))
        product = product * now
        moments[0] = 0.9 * moments[0] + 0.1 * gradient
        moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
        ahead = (1 - now) / (1 - float(product)) * gradient + then / (1 - float(product) * then) * moments[0]
        return 0.002 * ahead / ((moments[1] / (1 - 0.999**step)).sqrt() + 1e-8)

    return propose


NEEDS_MUON = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has Muon since 2.9")


def in_this_release(names: Iterable[str]) -> list[Any]:
    """Return parameters of tests, skipped where this release of PyTorch has no such optimizer."""
    return [pytest.param(name, marks=NEEDS_MUON) if name == "muon" else name for name in names]


def muon_of(model: nn.Module) -> Propose:
    """Muon on a network of its own, at a rate of 1: its iterations in bfloat16 are not written out again."""
    twin = copy.deepcopy(model)
    optimizer = torch.optim.Muon(twin.parameters(), lr=1.0)

    def propose(theta: Tensor, gradient: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(theta.clone(), twin.parameters())
        start = 0
        for parameter in twin.parameters():
            parameter.grad = gradient[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()
        optimizer.step()
        return 1e-3 * (theta - nn.utils.parameters_to_vector(twin.parameters()).detach())

    return propose


DIRECTIONS: dict[str, tuple[Callable[[nn.Module], Any], Callable[[nn.Module], Propose]]] = {
    "gradient": (lambda model: "gradient", gradient_of),
    "sgd": (lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), sgd_of),
    "nadam": (lambda model: torch.optim.NAdam(model.parameters()), nadam_of),
    "muon": (lambda model: torch.optim.Muon(model.parameters(), lr=1e-3), muon_of),
}


def assert_follows(optimizer: QLR, dense: DenseQLR, loss: str, outputs: int, steps: int = STEPS) -> None:
    inputs_of_all, targets_of_all = task((4,), loss, outputs)
    for step in range(steps):
        rows = torch.randperm(len(inputs_of_all))[:64]
        inputs, targets = inputs_of_all[rows], targets_of_all[rows]
        expected, info = dense.step(inputs, targets), optimizer.step(inputs, targets)
        for name, value in expected.items():
            assert float(getattr(info, name)) == pytest.approx(value, rel=TOLERANCE, abs=1e-14), (step, name)
        theta = nn.utils.parameters_to_vector(optimizer.model.parameters()).detach()
        torch.testing.assert_close(theta, dense.theta, rtol=TOLERANCE, atol=TOLERANCE)


def follow(network: str, direction: str, loss: str, outputs: int, curvature: Any, **options: Any) -> None:
    model = NETWORKS[network](outputs).double()
    make, formula = DIRECTIONS[direction]
    dense = DenseQLR(model, loss, curvature, formula(model), **options)
    assert_follows(QLR(model, loss, make(model), curvature=curvature, **options), dense, loss, outputs)


@pytest.mark.parametrize("momentum", [0.0, None, 0.5], ids=["one direction", "two", "second fixed"])
@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
@pytest.mark.parametrize(
    ("network", "direction"),
    [
        ("mlp", "gradient"),
        ("perceptron", "gradient"),
        ("mlp", "sgd"),
        ("perceptron", "sgd"),
        ("mlp", "nadam"),
        ("perceptron", "nadam"),
        pytest.param("biasless", "muon", marks=NEEDS_MUON),
    ],
)
def test_every_quantity_equals_dense_matrices(
    network: str, direction: str, curvature: str, momentum: float | None
) -> None:
    # The Hessian is indefinite: with little damping Q comes close to zero, and steps amplify rounding errors.
    damping = 1e-3 if curvature == "fisher" else 0.3
    follow(network, direction, "cross_entropy", 4, curvature, momentum=momentum, damping=damping)


@pytest.mark.parametrize("direction", ["gradient", "sgd", "nadam"])
def test_regression_equals_dense_matrices(direction: str) -> None:
    follow("perceptron", direction, "half_mse", 3, "fisher", momentum=None)


@pytest.mark.parametrize("momentum", [0.0, None, 0.5], ids=["one direction", "two", "second fixed"])
def test_a_fixed_learning_rate_is_taken_and_damping_still_follows_rho(momentum: float | None) -> None:
    follow("mlp", "gradient", "cross_entropy", 4, "fisher", lr=0.3, momentum=momentum)


def test_damping_that_may_rise_no_higher_stays_there() -> None:
    follow("mlp", "sgd", "cross_entropy", 4, "hessian", damping=0.3, damping_decrease=1.0, max_damping=0.5)
    model = perceptron(3)
    # Most steps this long climb, and far less than a parabola does.
    options = {"damping": 1.0, "damping_decrease": 1.0, "damping_increase": 3.0}
    optimizer = QLR(model, "cross_entropy", "gradient", lr=1e3, max_damping=5.0, **options)
    inputs, targets = torch.randn(32, 4), torch.randint(3, (32,))
    found = [float(optimizer.step(inputs, targets).damping) for _ in range(8)]
    assert set(found) - {1.0} == {3.0, 5.0}
    assert found[-1] == 5.0


def test_damping_that_is_not_adapted_stays() -> None:
    model = mlp(4).double()
    dense = DenseQLR(model, "cross_entropy", "fisher", gradient_of(model), damping=0.2, damping_decrease=1.0)
    dense.damping_increase = 1.0
    assert_follows(QLR(model, "cross_entropy", "gradient", damping=0.2, adapt_damping=False), dense, "cross_entropy", 4)


def test_qlr_over_adam_is_adamqlr() -> None:
    model = mlp(4).double()
    inputs, targets = task((4,), "cross_entropy", 4)
    other = copy.deepcopy(model)
    # A clipped rate: Adam's direction is that of PyTorch, times its learning rate.
    optimizer = QLR(model, "cross_entropy", torch.optim.Adam(model.parameters(), lr=1e-3))
    expected = AdamQLR(other, "cross_entropy")
    for _ in range(50):
        rows = torch.randperm(len(inputs))[:64]
        info, wanted = optimizer.step(inputs[rows], targets[rows]), expected.step(inputs[rows], targets[rows])
        for moved, parameter in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(moved, parameter, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(info.lr * 1e-3, wanted.lr, rtol=1e-8, atol=0)
        assert float(info.damping) == float(wanted.damping)


SCALED = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, amsgrad=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1),
    "nadam": lambda p, lr: torch.optim.NAdam(p, lr=lr),
    "radam": lambda p, lr: torch.optim.RAdam(p, lr=lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr, momentum=0.5),
    "adagrad": lambda p, lr: torch.optim.Adagrad(p, lr=lr),
    "adadelta": lambda p, lr: torch.optim.Adadelta(p, lr=lr),
    "adamax": lambda p, lr: torch.optim.Adamax(p, lr=lr),
    "muon": lambda p, lr: torch.optim.Muon(p, lr=lr),
}


@pytest.mark.parametrize("name", in_this_release(SCALED))
@pytest.mark.parametrize("momentum", [0.0, None])
def test_the_wrapped_learning_rate_cancels(name: str, momentum: float | None) -> None:
    first = biasless(3).double()
    second = copy.deepcopy(first)
    start = nn.utils.parameters_to_vector(first.parameters()).detach().clone()
    optimizers = [
        QLR(model, "cross_entropy", SCALED[name](model.parameters(), lr), momentum=momentum)
        for model, lr in ((first, 1e-3), (second, 1.0))
    ]
    inputs, targets = task((4,), "cross_entropy", 3)
    for _ in range(20):
        for optimizer in optimizers:
            optimizer.step(inputs, targets)
    ends = [nn.utils.parameters_to_vector(model.parameters()).detach() for model in (first, second)]
    assert float((ends[0] - ends[1]).abs().max()) < 1e-8
    assert float((ends[0] - start).abs().max()) > 1e-2


def test_the_direction_of_ones_own_in_the_documentation_works_as_it_stands_there() -> None:
    assert Direction.__doc__ is not None
    example = Direction.__doc__.partition("A direction of one's own::\n")[2].partition("\n    Attributes:")[0]
    model = mlp(4).double()
    names: dict[str, Any] = {"torch": torch, "QLR": QLR, "model": model}
    mean = torch.zeros(())

    def signs(theta: Tensor, gradient: Tensor) -> Tensor:
        nonlocal mean
        mean = 0.9 * mean + 0.1 * gradient
        return mean.sign()

    dense = DenseQLR(model, "cross_entropy", "fisher", signs)
    exec(textwrap.dedent(example), names)
    optimizer = names["optimizer"]
    assert optimizer.param_groups[0]["beta"] == 0.9
    assert_follows(optimizer, dense, "cross_entropy", 4)
    # Its state is saved with everybody's.
    assert optimizer.state_dict()["state"][0]["mean"].shape == model.get_parameter("0.weight").shape


class Counting:
    """The gradient every other step, by a count on the host, and its negative between."""

    defaults: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.count = 0

    def bind(self, flat: FlatParameters, state: State) -> None:
        """Do nothing."""

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        self.count += 1
        torch.mul(gradient.buffer, (-1.0) ** self.count, out=out)

    def undo(self) -> Callable[[], None]:
        count = self.count
        return lambda: setattr(self, "count", count - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


def test_what_a_direction_of_ones_own_keeps_on_the_host_is_saved_and_taken_back() -> None:
    direction, other = Counting(), Counting()
    optimizer = QLR(mlp(4).double(), "cross_entropy", direction, on_nonfinite="skip")
    inputs, targets = task((4,), "cross_entropy", 3)
    assert bool(optimizer.step(inputs, targets).taken)
    assert not bool(optimizer.step(inputs * float("nan"), targets).taken)
    assert direction.count == 1
    assert not optimizer.capturable
    again = QLR(mlp(4).double(), "cross_entropy", other, on_nonfinite="skip")
    again.load_state_dict(optimizer.state_dict())
    assert other.count == 1
    plain = QLR(mlp(4).double(), "cross_entropy", "gradient")
    assert plain.capturable
    with pytest.raises(ValueError, match="none of the direction's"):
        again.load_state_dict(plain.state_dict())


def test_optimizers_whose_step_is_no_direction_are_refused() -> None:
    model, other = mlp(3), mlp(3)

    def message(direction: Any, kind: type[Exception] = ValueError) -> str:
        with pytest.raises(kind) as caught:
            QLR(model, "cross_entropy", direction)
        return str(caught.value)

    everything = list(model.parameters())
    assert message(torch.optim.LBFGS(everything)) == (
        "LBFGS cannot be a direction: its step evaluates a closure several times"
    )
    assert message(torch.optim.ASGD(everything)) == "ASGD cannot be a direction: it averages parameters"
    assert message(torch.optim.SparseAdam(everything)) == (
        "SparseAdam cannot be a direction: it needs sparse gradients"
    )
    assert message(torch.optim.SGD(everything[:2])) == (
        "SGD does not move 2.weight: give it all trained parameters, or QLR only its own with params=…"
    )
    assert message(torch.optim.SGD([*everything, *other.parameters()])) == (
        "SGD moves parameters that are not trained here: give it the model's own"
    )
    for one_of_ours in (AdamQLR(model, "cross_entropy"), SGD(model, "cross_entropy", lr=0.1)):
        assert message(one_of_ours) == (
            f"{type(one_of_ours).__name__} cannot be a direction: its step wants the minibatch; use its name instead"
        )
    assert message(torch.optim.Adam(everything, maximize=True)) == (
        "Adam cannot be a direction with maximize=True: give the negative of the loss"
    )

    class ScheduleFree(torch.optim.SGD):
        def train(self) -> None: ...

        def eval(self) -> None: ...

    assert message(ScheduleFree(everything)) == (
        "ScheduleFree cannot be a direction: it keeps averaged parameters beside those it moves"
    )
    assert message("newton") == ("unknown direction 'newton': use 'gradient', 'adam', 'kronecker' or an optimizer")
    assert message(torch.optim.NAdam, TypeError) == ("direction must be made, not a class: NAdam(model.parameters())")
    assert message(3.0, TypeError) == (
        "direction must be a name, a torch.optim.Optimizer or have defaults, bind and propose, got float"
    )


def test_a_class_with_the_methods_of_a_direction_is_no_direction() -> None:
    class Steepest:
        defaults: Mapping[str, Any] = {}

        def bind(self, flat: Any, state: Any) -> None: ...

        def propose(self, gradient: Any, damping: Tensor, out: Tensor) -> None:
            out.copy_(gradient.buffer)

    with pytest.raises(TypeError, match=r"^direction must be made, not a class: Steepest\(\)$"):
        QLR(mlp(3), "cross_entropy", Steepest)
    QLR(mlp(3), "cross_entropy", Steepest())


def test_parameters_outside_the_wrapped_optimizer_may_be_left_out() -> None:
    model = mlp(3)
    head, body = list(model[2].parameters()), list(model[0].parameters())
    optimizer = QLR(model, "cross_entropy", torch.optim.SGD(head, lr=0.1), params=head)
    before, kept = head[0].clone(), [parameter.clone() for parameter in body]
    optimizer.step(torch.randn(8, 4), torch.randint(3, (8,)))
    torch.testing.assert_close(body, kept, rtol=0, atol=0)
    assert not torch.equal(head[0], before)


class Decaying(torch.optim.Optimizer):
    """Adds its weight decay to the gradient in place, as many optimizers outside PyTorch do."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            assert parameter.grad is not None
            parameter.grad.add_(parameter, alpha=0.3)
            parameter.sub_(parameter.grad, alpha=0.1)
            parameter.grad.fill_(7.0)


@pytest.mark.parametrize("network", ["mlp", "perceptron"])
def test_what_a_wrapped_optimizer_does_to_gradients_stays_its_own(network: str) -> None:
    model = NETWORKS[network](4).double()
    dense = DenseQLR(model, "cross_entropy", "fisher", lambda theta, gradient: 0.1 * (gradient + 0.3 * theta))
    optimizer = QLR(model, "cross_entropy", Decaying(model.parameters()))
    assert_follows(optimizer, dense, "cross_entropy", 4)
    before = copy.deepcopy(model)
    inputs, targets = task((4,), "cross_entropy", 4)
    optimizer.step(inputs, targets)
    nn.functional.cross_entropy(before(inputs), targets).backward()
    for parameter, expected in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


class Rebinding(torch.optim.Optimizer):
    """Gives parameters new storage instead of writing into theirs."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            assert parameter.grad is not None
            parameter.data = parameter.data - 0.1 * parameter.grad


@pytest.mark.parametrize("network", ["mlp", "perceptron"])
def test_a_wrapped_optimizer_may_give_parameters_new_storage(network: str) -> None:
    model = NETWORKS[network](4).double()
    dense = DenseQLR(model, "cross_entropy", "fisher", lambda theta, gradient: 0.1 * gradient, momentum=None)
    optimizer = QLR(model, "cross_entropy", Rebinding(model.parameters()), momentum=None)
    assert_follows(optimizer, dense, "cross_entropy", 4)


class Reluctant(torch.optim.SGD):
    """Only makes its state in the first step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.state:
            super().step()
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["known"] = torch.ones(())


@pytest.mark.parametrize("momentum", [0.0, None, 0.5])
@pytest.mark.parametrize("network", ["mlp", "perceptron"])
def test_a_first_step_that_moves_nothing_moves_nothing(network: str, momentum: float | None) -> None:
    model = NETWORKS[network](3)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = QLR(model, "cross_entropy", Reluctant(model.parameters(), lr=0.1), momentum=momentum, damping=0.5)
    batch = torch.randn(16, 4), torch.randint(3, (16,))
    info = optimizer.step(*batch)
    assert (float(info.lr), float(info.damping), float(info.true_change)) == (0.0, 0.5, 0.0)
    assert torch.isnan(info.rho)
    torch.testing.assert_close([p.detach() for p in model.parameters()], start, rtol=0, atol=0)
    losses = [float(optimizer.step(*batch).loss) for _ in range(10)]
    assert losses[0] == float(info.loss)
    assert losses[-1] < 0.9 * losses[0]


STATEFUL: dict[str, Callable[[nn.Module], QLR]] = {
    "sgd": lambda m: QLR(m, "cross_entropy", torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), momentum=None),
    "nadam": lambda m: QLR(m, "cross_entropy", torch.optim.NAdam(m.parameters())),
    "adagrad": lambda m: QLR(m, "cross_entropy", torch.optim.Adagrad(m.parameters()), momentum=0.5),
    "muon": lambda m: QLR(m, "cross_entropy", torch.optim.Muon(m.parameters()), curvature="hessian"),
    "gradient": lambda m: QLR(m, "cross_entropy", "gradient", momentum=None),
    "adam": lambda m: QLR(m, "cross_entropy", "adam", momentum=None),
    "kronecker": lambda m: QLR(m, "cross_entropy", "kronecker"),
}


@pytest.mark.parametrize("name", in_this_release(STATEFUL))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_round_trips_through_a_file_to_the_bit(name: str, dtype: torch.dtype) -> None:
    model = biasless(3).to(dtype)
    batches = [(torch.randn(16, 4, dtype=dtype), torch.randint(3, (16,))) for _ in range(7)]
    optimizer = STATEFUL[name](model)
    for batch in batches[:3]:
        optimizer.step(*batch)
    file = io.BytesIO()
    generator = torch.get_rng_state()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for batch in batches[3:]:
        info = optimizer.step(*batch)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = biasless(3).to(dtype)
    resumed.load_state_dict(saved["model"])
    again = STATEFUL[name](resumed)
    again.step(*batches[0])
    again.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["model"])
    torch.set_rng_state(generator)
    for batch in batches[3:]:
        info_again = again.step(*batch)
    torch.testing.assert_close(list(resumed.parameters()), list(model.parameters()), rtol=0, atol=0)
    torch.testing.assert_close(tuple(info_again), tuple(info), rtol=0, atol=0, equal_nan=True)


def test_state_of_another_direction_is_refused() -> None:
    model = biasless(3)
    saved = {name: STATEFUL[name](copy.deepcopy(model)).state_dict() for name in ("gradient", "adam", "nadam")}
    with pytest.raises(
        ValueError, match=r"^the saved state has none of the direction's: it is of another optimizer, or"
    ):
        STATEFUL["nadam"](model).load_state_dict(saved["adam"])
    with pytest.raises(ValueError, match=r"^the saved state has no 'exp_avg' of 0\.weight: it is of another optimizer"):
        STATEFUL["adam"](model).load_state_dict(saved["nadam"])
    inner = torch.optim.Adam(model.parameters())
    model(torch.randn(8, 4)).sum().backward()
    inner.step()
    with pytest.raises(ValueError, match=r"^the saved state has no damping: it is of another optimizer$"):
        STATEFUL["adam"](model).load_state_dict(inner.state_dict())


def test_state_of_another_network_is_refused() -> None:
    saved = AdamQLR(nn.Linear(4, 3, bias=False), "half_mse").state_dict()
    with pytest.raises(ValueError, match=r"^the saved 'exp_avg' of weight has the shape \(3, 4\), not \(3, 5\)$"):
        AdamQLR(nn.Linear(5, 3, bias=False), "half_mse").load_state_dict(saved)


MEMORIZING: dict[str, tuple[int, Callable[[nn.Module], QLR]]] = {
    "AdamQLR": (12, lambda m: AdamQLR(m, "cross_entropy")),
    "QLR": (12, lambda m: QLR(m, "cross_entropy", torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9))),
    "KFAC": (6, lambda m: KFAC(m, "half_mse")),
}


@pytest.mark.parametrize("name", MEMORIZING)
def test_damping_does_not_run_away_once_a_minibatch_is_memorized(name: str) -> None:
    """Where the loss moves by less than its last place, ρ is noise, after which λ would grow without end."""
    rows, make = MEMORIZING[name]

    def largest(minibatch: int, resolution: float | None) -> float:
        torch.manual_seed(minibatch)
        inputs = torch.randn(rows, 4)
        targets = torch.randn(rows, 3) if name == "KFAC" else torch.randint(3, (rows,))
        optimizer = make(nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 3)))
        start = float(optimizer.damping)
        for group in optimizer.param_groups:
            group["resolution"] = resolution
        infos = [optimizer.step(inputs, targets) for _ in range(300)]
        assert resolution is None or float(infos[-1].loss) < 1e-3
        return max(float(info.damping) for info in infos) / start

    # What noise does to one minibatch is chance.
    assert np.median([largest(minibatch, 4.0) for minibatch in range(9)]) < 10
    assert np.median([largest(minibatch, None) for minibatch in range(9)]) > 1e6


@pytest.mark.parametrize("direction", ["gradient", "sgd", "nadam"])
@pytest.mark.parametrize("factor", [0.5, 0.3, 2.0])
def test_the_learning_rate_of_the_groups_is_a_factor_of_the_step(direction: str, factor: float) -> None:
    first = mlp(3).double()
    second = copy.deepcopy(first)
    start = nn.utils.parameters_to_vector(first.parameters()).detach().clone()
    batch = task((4,), "cross_entropy", 3)
    make = DIRECTIONS[direction][0]
    whole, part = (QLR(model, "cross_entropy", make(model)) for model in (first, second))
    part.param_groups[0]["lr"] = factor
    info, scaled = whole.step(*batch), part.step(*batch)
    assert float(scaled.lr) == factor * float(info.lr)
    steps = [nn.utils.parameters_to_vector(model.parameters()).detach() - start for model in (first, second)]
    torch.testing.assert_close(steps[1], factor * steps[0], rtol=1e-12, atol=1e-15)
    # ρ is that of the step really taken.
    change = nn.functional.cross_entropy(second(batch[0]), batch[1]).item() - float(scaled.loss)
    assert float(scaled.true_change) == pytest.approx(change, rel=1e-9)


def test_the_factor_cancels_in_no_fixed_learning_rate() -> None:
    model = mlp(3).double()
    batch = task((4,), "cross_entropy", 3)
    optimizer = QLR(model, "cross_entropy", "gradient", lr=0.2, momentum=0.0, adapt_damping=False)
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    info = optimizer.step(*batch)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(nn.utils.parameters_to_vector(model.parameters()).detach(), start - 0.2 * gradient)
    assert (float(info.lr), float(info.damping)) == (0.2, 1e-3)
    assert all(torch.isnan(value) for value in (info.rho, info.curvature, info.model_change, info.true_change))


@pytest.mark.parametrize("momentum", [0.0, None])
@pytest.mark.parametrize("direction", ["gradient", "sgd", "nadam"])
@pytest.mark.parametrize("network", ["mlp", "perceptron"])
def test_groups_with_factors_and_decays_of_their_own_equal_a_direction_scaled_by_group(
    network: str, direction: str, momentum: float | None
) -> None:
    model = NETWORKS[network](4).double()
    make, formula = DIRECTIONS[direction]
    rates, decays = {"weight": 0.8, "bias": 0.2}, {"weight": 1e-2, "bias": 0.0}
    kinds = [(name.rpartition(".")[2], p) for name, p in model.named_parameters()]
    factors, decayed = (
        torch.cat([torch.full((p.numel(),), table[kind], dtype=torch.float64) for kind, p in kinds])
        for table in (rates, decays)
    )
    dense = DenseQLR(
        model, "cross_entropy", "fisher", formula(model), momentum=momentum, factors=factors, decays=decayed
    )
    groups = [
        {"params": [p for k, p in kinds if k == kind], "lr": rates[kind], "weight_decay": decays[kind]}
        for kind in ("bias", "weight")
    ]
    # The wrapped optimizer sees no groups: it moves all parameters alike.
    optimizer = QLR(model, "cross_entropy", make(model), momentum=momentum, params=groups)
    assert_follows(optimizer, dense, "cross_entropy", 4)


def test_what_stands_in_the_parameter_groups_is_read_at_every_step() -> None:
    model = mlp(4).double()
    optimizer = QLR(model, "cross_entropy", "gradient", damping=1.0)
    dense = DenseQLR(model, "cross_entropy", "fisher", gradient_of(model), damping=1.0)
    assert_follows(optimizer, dense, "cross_entropy", 4, steps=2)
    for group in optimizer.param_groups:
        group["damping"], group["momentum"], group["damping_decrease"], group["curvature"] = 0.7, None, 0.9, "hessian"
    dense.damping, dense.momentum, dense.damping_decrease, dense.curvature = 0.7, None, 0.9, "hessian"
    # The previous update is not kept where nobody asks for it: momentum starts from nothing.
    dense.update = torch.zeros_like(dense.theta)
    assert_follows(optimizer, dense, "cross_entropy", 4, steps=5)
    optimizer.param_groups[0]["lr_clipping"], optimizer.param_groups[0]["max_damping"] = 1e-3, 0.1
    info = optimizer.step(*task((4,), "cross_entropy", 4))
    assert (float(info.lr), float(info.damping)) == (1e-3, 0.1)


def test_options_that_are_one_for_all_parameters_may_not_differ_between_groups() -> None:
    model = mlp(3)
    optimizer = QLR(model, "cross_entropy", "gradient", params=[{"params": [p]} for p in model.parameters()])
    optimizer.step(torch.randn(8, 4), torch.randint(3, (8,)))
    optimizer.param_groups[2]["momentum"] = 0.5
    message = "momentum is one for all parameters: param_groups[2] has 0.5, param_groups[0] has 0.0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizer.step(torch.randn(8, 4), torch.randint(3, (8,)))
