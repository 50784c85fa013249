"""Any loss and anybody's loop.

Values, gradients and curvature against PyTorch's own derivatives, randomness that moves once a step, steps that are
refused, and what cannot be done.
"""

import copy
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from adamqlr import KFAC, QLR, AdamQLR

Batch = tuple[Tensor, Tensor]


def qlr_over_nadam(model: nn.Module, loss: Any, **options: Any) -> QLR:
    return QLR(model, loss, torch.optim.NAdam(model.parameters()), **options)


MAKERS: dict[str, Callable[..., QLR]] = {"AdamQLR": AdamQLR, "QLR over NAdam": qlr_over_nadam, "KFAC": KFAC}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., QLR]:
    return MAKERS[request.param]


# Any loss.

ROWS, CLASSES = 14, 4


class Smoothed(nn.CrossEntropyLoss):
    """A subclass, which computes what its parent does not."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(2 * input, target) + 0.1 * input.square().mean()


class LogCosh(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).cosh().log().mean()


def quartic(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).pow(4).sum(dim=1).mean()


def robust(outputs: Tensor, targets: Tensor) -> Tensor:
    """Not convex in the outputs."""
    squares = (outputs - targets).square().sum(dim=1)
    return (squares / (1 + squares)).mean()


def classes() -> Tensor:
    return torch.randint(CLASSES, (ROWS,))


def some_ignored() -> Tensor:
    targets = classes()
    targets[[0, 3, 4, 9]] = -100
    return targets


def numbers() -> Tensor:
    return torch.randn(ROWS, CLASSES).double()


def probabilities() -> Tensor:
    return torch.softmax(torch.randn(ROWS, CLASSES).double(), dim=1)


def halves() -> Tensor:
    return torch.randint(2, (ROWS, CLASSES)).double()


WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0]).double()
Case = tuple[Any, Callable[[Tensor, Tensor], Tensor], Callable[[], Tensor]]


def same(loss: nn.Module, targets: Callable[[], Tensor]) -> Case:
    return loss, loss, targets


# What the optimizer is given, the loss as PyTorch has it, and targets.
LOSSES: dict[str, Case] = {
    "BCEWithLogits": same(nn.BCEWithLogitsLoss(), halves),
    "BCEWithLogits, weight": same(nn.BCEWithLogitsLoss(weight=WEIGHT), halves),
    "BCEWithLogits, pos_weight": same(nn.BCEWithLogitsLoss(pos_weight=WEIGHT), halves),
    "BCEWithLogits, sum": same(nn.BCEWithLogitsLoss(reduction="sum"), halves),
    "Huber": same(nn.HuberLoss(delta=0.7), numbers),
    "SmoothL1": same(nn.SmoothL1Loss(beta=0.5), numbers),
    "MSE": same(nn.MSELoss(), numbers),
    "MSE, sum": same(nn.MSELoss(reduction="sum"), numbers),
    "half MSE": ("half_mse", lambda outputs, targets: 0.5 * functional.mse_loss(outputs, targets), numbers),
    "cross-entropy by name, ignored": ("cross_entropy", functional.cross_entropy, some_ignored),
    "cross-entropy": same(nn.CrossEntropyLoss(), classes),
    "cross-entropy, weight": same(nn.CrossEntropyLoss(weight=WEIGHT), some_ignored),
    "cross-entropy, ignore_index": same(nn.CrossEntropyLoss(ignore_index=2), classes),
    "cross-entropy, smoothed": same(nn.CrossEntropyLoss(label_smoothing=0.2), some_ignored),
    "cross-entropy, smoothed and weighted": same(nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), some_ignored),
    "cross-entropy, sum": same(nn.CrossEntropyLoss(reduction="sum"), some_ignored),
    "cross-entropy, probabilities": same(nn.CrossEntropyLoss(), probabilities),
    "cross-entropy, probabilities smoothed and weighted": same(
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), probabilities
    ),
    "subclass of cross-entropy": same(Smoothed(), classes),
    "function": (functional.cross_entropy, functional.cross_entropy, some_ignored),
    "function of one's own": (quartic, quartic, numbers),
    "function that is not convex": (robust, robust, numbers),
    "module of one's own": same(LogCosh(), numbers),
}


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, CLASSES)).double()


def tangent_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, CLASSES, bias=False)).double()


NETWORKS = {"perceptron": perceptron, "another": tangent_network}


class Dense:
    """A network on one minibatch as a function of a flat θ, with PyTorch's own derivatives of it and of the loss."""

    def __init__(self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor):
        self.model, self.loss, self.inputs, self.targets = copy.deepcopy(model), loss, inputs, targets
        self.theta = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        self.result = self.outputs(self.theta).detach()
        self.output_hessian = hessian(
            lambda flat: loss(flat.view_as(self.result), targets), self.result.flatten().clone()
        )

    def outputs(self, theta: Tensor) -> Tensor:
        named, start = {}, 0
        for name, parameter in self.model.named_parameters():
            named[name] = theta[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        return functional_call(self.model, named, (self.inputs,))

    def value(self, theta: Tensor) -> Tensor:
        return self.loss(self.outputs(theta), self.targets)

    def gradient(self) -> Tensor:
        theta = self.theta.clone().requires_grad_()
        return torch.autograd.grad(self.value(theta), theta)[0]

    def fisher(self) -> Tensor:
        matrix = jacobian(self.outputs, self.theta).reshape(self.result.numel(), -1)
        return matrix.T @ self.output_hessian @ matrix


def moved(model: nn.Module, dense: Dense) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach() - dense.theta


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_gradient_and_curvature_are_those_of_the_loss(name: str, network: str) -> None:
    loss, reference, draw = LOSSES[name]
    model = NETWORKS[network]()
    inputs, targets = torch.randn(ROWS, 3).double(), draw()
    dense = Dense(model, reference, inputs, targets)
    info = AdamQLR(model, loss, damping=0.1).step(inputs, targets)
    gradient = dense.gradient()
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)
    # Adam's first direction.
    direction = gradient / (gradient.abs() + 1e-8)
    curvature = float(direction @ dense.fisher() @ direction + 0.1 * direction @ direction)
    assert float(info.loss) == pytest.approx(float(dense.value(dense.theta)), rel=1e-10)
    assert float(info.curvature) == pytest.approx(curvature, rel=1e-8)
    lr = float(gradient @ direction) / curvature
    torch.testing.assert_close(moved(model, dense), -lr * direction, rtol=1e-7, atol=1e-10)
    change = float(dense.value(dense.theta - lr * direction) - dense.value(dense.theta))
    assert float(info.true_change) == pytest.approx(change, rel=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LOSSES)
def test_kfacs_exact_factors_are_those_of_the_loss(name: str, network: str) -> None:
    """G = Σ_b Jᵀ_b H_b J_b, J_b the outputs' Jacobian in the layer's outputs and H_b the loss's own block of case b."""
    loss, reference, draw = LOSSES[name]
    model = NETWORKS[network]()
    inputs, targets = torch.randn(ROWS, 3).double(), draw()
    dense = Dense(model, reference, inputs, targets)
    blocks = dense.output_hessian.view(ROWS, CLASSES, ROWS, CLASSES)
    optimizer = KFAC(model, loss, fisher="exact")
    first, last = copy.deepcopy(model[0]), copy.deepcopy(model[2])
    info = optimizer.step(inputs, targets)
    expected = {"0": torch.zeros(5, 5).double(), "2": torch.zeros(CLASSES, CLASSES).double()}
    between = model[1]
    for case in range(ROWS):
        block = blocks[case, :, case]
        # No covariance has the negative part of what is not convex.
        values, vectors = torch.linalg.eigh(block)
        block = vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
        through = jacobian(lambda outputs: last(between(outputs)), first(inputs[case]).detach())
        expected["2"] += block
        expected["0"] += through.T @ block @ through
    for layer, factor in expected.items():
        found = optimizer.state[model.get_submodule(layer).weight]["output_factor"].tril()
        torch.testing.assert_close(found, factor.tril(), rtol=1e-8, atol=1e-12)
    # The quadratic model has the exact Fisher of the minibatch.
    update = moved(model, dense)
    change = float(dense.gradient() @ update + 0.5 * update @ dense.fisher() @ update)
    assert float(info.model_change) == pytest.approx(change, rel=1e-7)


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"reduction": "sum"}, {"ignore_index": 1}], ids=str)
@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
def test_likelihood_of_log_probabilities_is_cross_entropy_of_logits(options: dict[str, Any], curvature: Any) -> None:
    """Its own Hessian in the outputs is none at all: the log-softmax has all of the curvature."""
    logits = perceptron()
    log_probabilities = nn.Sequential(*copy.deepcopy(logits), nn.LogSoftmax(dim=1))
    inputs, targets = torch.randn(ROWS, 3).double(), some_ignored() if "ignore_index" not in options else classes()
    infos = []
    for model, loss in ((logits, nn.CrossEntropyLoss(**options)), (log_probabilities, nn.NLLLoss(**options))):
        optimizer = AdamQLR(model, loss, curvature=curvature, momentum=None, damping=0.1)
        infos.append(torch.tensor([tuple(map(float, optimizer.step(inputs, targets))) for _ in range(5)]).double())
    torch.testing.assert_close(infos[0], infos[1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(list(log_probabilities.parameters()), list(logits.parameters()), rtol=1e-8, atol=1e-10)


def test_kfac_trains_log_probabilities_as_logits_with_the_exact_fisher() -> None:
    logits = perceptron()
    log_probabilities = nn.Sequential(*copy.deepcopy(logits), nn.LogSoftmax(dim=1))
    inputs, targets = torch.randn(ROWS, 3).double(), some_ignored()
    for model, loss in ((logits, nn.CrossEntropyLoss()), (log_probabilities, nn.NLLLoss())):
        optimizer = KFAC(model, loss, fisher="exact")
        for _ in range(5):
            optimizer.step(inputs, targets)
    torch.testing.assert_close(list(log_probabilities.parameters()), list(logits.parameters()), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS + 1])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", ["cross_entropy", "half_mse", nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(WEIGHT)])
def test_too_few_or_too_many_targets_are_refused(make: Callable[..., QLR], loss: Any, network: str, rows: int) -> None:
    model = NETWORKS[network]()
    before = copy.deepcopy(model.state_dict())
    classified = loss == "cross_entropy" or isinstance(loss, nn.CrossEntropyLoss)
    targets = torch.randint(CLASSES, (rows,)) if classified else torch.rand(rows, CLASSES).double()
    with pytest.raises((ValueError, RuntimeError), match=r"size mismatch|batch_size|shape|target size"):
        make(model, loss).step(torch.randn(ROWS, 3).double(), targets)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_losses_without_curvature_or_of_many_numbers_are_refused() -> None:
    def message(loss: Any) -> str:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
            AdamQLR(perceptron(), loss).step(torch.randn(ROWS, 3).double(), numbers())
        return str(caught.value)

    def distance(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * targets).mean()

    class Likelihood(nn.NLLLoss):
        """A subclass, of which nobody knows whether its outputs are log-probabilities."""

    assert message(nn.L1Loss()) == "L1Loss has no curvature to choose a step by: use a smooth loss, such as HuberLoss"
    assert message(nn.KLDivLoss(reduction="batchmean")) == (
        "KLDivLoss is linear in the outputs: use CrossEntropyLoss, whose targets may be probabilities"
    )
    assert message(Likelihood()) == "Likelihood is linear in the outputs: give it a hessian_vector_product"
    assert message(distance) == (
        "the loss distance is linear in the outputs: there is no curvature to choose a step by"
    )
    assert message(lambda outputs, targets: (outputs - targets).square()) == (
        f"the loss must be a 0-d tensor, got the shape ({ROWS}, {CLASSES}): return its mean"
    )
    assert message(nn.HuberLoss(reduction="none")) == (
        "HuberLoss must reduce to one number: use reduction='mean' or 'sum', not 'none'"
    )


# Randomness.


def random_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.4), nn.Tanh(), nn.Linear(16, 6), nn.RReLU(), nn.Linear(6, 3)
    ).double()


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
def test_all_passes_see_the_same_random_numbers_and_generators_move_once(
    make: Callable[..., QLR], curvature: str
) -> None:
    options = {} if make is KFAC else {"curvature": curvature}
    model = random_network()
    optimizer = make(model, "cross_entropy", **options)
    for _ in range(3):
        inputs, targets = torch.randn(20, 3).double(), torch.randint(3, (20,))
        before = copy.deepcopy(model)
        start = torch.get_rng_state()
        outputs = before(inputs)
        if make is KFAC:
            torch.empty_like(outputs).exponential_()
        end = torch.get_rng_state()
        loss = functional.cross_entropy(outputs, targets)
        gradients = torch.autograd.grad(loss, list(before.parameters()))
        torch.set_rng_state(start)
        info = optimizer.step(inputs, targets)
        # As if there had been one forward pass.
        assert torch.equal(torch.get_rng_state(), end)
        torch.testing.assert_close(list(model.buffers()), list(before.buffers()), rtol=0, atol=0)
        after = copy.deepcopy(model)
        torch.set_rng_state(start)
        change = functional.cross_entropy(after(inputs), targets) - loss
        torch.set_rng_state(end)
        assert float(info.loss) == pytest.approx(loss.item(), rel=1e-12)
        assert float(info.true_change) == pytest.approx(change.item(), rel=1e-7)
        torch.testing.assert_close([p.grad for p in model.parameters()], list(gradients), rtol=1e-8, atol=1e-10)


def test_dropouts_masks_are_those_of_the_tangent_pass_too() -> None:
    """The curvature along the step, with the masks as constants."""
    model = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3)).double()
    inputs, targets = torch.randn(20, 3).double(), torch.randint(3, (20,))
    start = torch.get_rng_state()
    mask = functional.dropout(torch.ones(20, 16).double(), 0.5)

    class Masked(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features * mask

    constant = nn.Sequential(copy.deepcopy(model[0]), Masked(), nn.Tanh(), copy.deepcopy(model[3]))
    for kind in ("fisher", "hessian"):
        infos = []
        for network in (copy.deepcopy(model), copy.deepcopy(constant)):
            torch.set_rng_state(start)
            infos.append(tuple(AdamQLR(network, "cross_entropy", curvature=kind).step(inputs, targets)))
        torch.testing.assert_close(infos[0], infos[1], rtol=1e-9, atol=1e-12)


def test_spectral_normalization_iterates_once_a_step(make: Callable[..., QLR]) -> None:
    model = nn.Sequential(spectral_norm(nn.Linear(3, 8)), nn.Tanh(), nn.Linear(8, 3)).double()
    untouched = [buffer.clone() for buffer in model.buffers()]
    optimizer = make(model, "cross_entropy")
    torch.testing.assert_close(list(model.buffers()), untouched, rtol=0, atol=0)
    for _ in range(3):
        inputs, targets = torch.randn(20, 3).double(), torch.randint(3, (20,))
        before = copy.deepcopy(model)
        start = {name: buffer.clone() for name, buffer in before.named_buffers()}
        loss = functional.cross_entropy(before(inputs), targets)
        buffers = [buffer.clone() for buffer in before.buffers()]
        info = optimizer.step(inputs, targets)
        torch.testing.assert_close(list(model.buffers()), buffers, rtol=1e-12, atol=0)
        assert float(info.loss) == pytest.approx(loss.item(), rel=1e-12)
        # The last pass starts from the vectors that the first one started from.
        after = copy.deepcopy(model)
        for name, buffer in after.named_buffers():
            buffer.copy_(start[name])
        change = functional.cross_entropy(after(inputs), targets).item() - float(info.loss)
        assert float(info.true_change) == pytest.approx(change, rel=1e-7)


class Counting(nn.Module):
    """Replaces its buffer at every call, as many modules do, and uses it."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.scale = 0.5 * self.scale
        return self.linear(inputs) * self.scale


def test_buffers_that_a_module_replaces_move_once_a_step(make: Callable[..., QLR]) -> None:
    model = Counting().double()
    optimizer = make(model, "cross_entropy")
    for step in range(1, 4):
        inputs, targets = torch.randn(20, 3).double(), torch.randint(3, (20,))
        before = copy.deepcopy(model.linear)
        info = optimizer.step(inputs, targets)
        scale = 0.5**step
        assert float(model.scale) == scale
        losses = [functional.cross_entropy(linear(inputs) * scale, targets) for linear in (before, model.linear)]
        assert float(info.loss) == pytest.approx(losses[0].item(), rel=1e-12)
        assert float(info.true_change) == pytest.approx((losses[1] - losses[0]).item(), rel=1e-7)


# Safety.


def normalized() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))


SKIPPING: dict[str, Callable[[nn.Module], QLR]] = {
    "AdamQLR": lambda m: AdamQLR(m, "cross_entropy", on_nonfinite="skip", momentum=None),
    "NAdam": lambda m: qlr_over_nadam(m, "cross_entropy", on_nonfinite="skip"),
    "SGD": lambda m: QLR(
        m, "cross_entropy", torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), on_nonfinite="skip", momentum=0.5
    ),
    "KFAC": lambda m: KFAC(m, "cross_entropy", on_nonfinite="skip"),
    "KFAC, inverses kept": lambda m: KFAC(m, "cross_entropy", on_nonfinite="skip", inverse_period=2),
}


def everything(model: nn.Module, optimizer: QLR) -> Any:
    saved = optimizer.state_dict()
    # Nobody waits to know whether the first step stands.
    del saved["has_started"]
    # PyTorch makes a wrapped optimizer's entries before it fills them.
    if "direction" in saved:
        saved["direction"]["state"] = {k: v for k, v in saved["direction"]["state"].items() if v}
    return copy.deepcopy((model.state_dict(), saved))


def tensors(saved: Any) -> list[Any]:
    if isinstance(saved, dict):
        return [leaf for key in sorted(saved, key=str) for leaf in [str(key), *tensors(saved[key])]]
    if isinstance(saved, (list, tuple)):
        return [leaf for value in saved for leaf in tensors(value)]
    return [saved]


def assert_equal(first: Any, second: Any) -> None:
    one, other = tensors(first), tensors(second)
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        if isinstance(left, Tensor):
            torch.testing.assert_close(left, right, rtol=0, atol=0)
        else:
            assert left == right


def counting() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), Counting())


@pytest.mark.parametrize("bad_value", [float("nan"), float("inf")])
@pytest.mark.parametrize("build", [normalized, plain, counting])
@pytest.mark.parametrize("bad_step", [0, 1, 3])
@pytest.mark.parametrize("name", SKIPPING)
def test_a_step_that_is_not_finite_can_be_refused(
    name: str, build: Callable[[], nn.Sequential], bad_step: int, bad_value: float
) -> None:
    some = [(torch.randn(16, 3), torch.randint(3, (16,))) for _ in range(5)]
    ruined = some[0][0].clone()
    ruined[2, 1] = bad_value
    model = build()
    optimizer = SKIPPING[name](model)
    other, another = copy.deepcopy((model, optimizer))
    for step, batch in enumerate(some):
        if step == bad_step:
            before = everything(model, optimizer)
            info = optimizer.step(ruined, batch[1])
            assert not bool(info.taken)
            assert_equal(everything(model, optimizer), before)
        torch.manual_seed(step)
        info = optimizer.step(*batch)
        torch.manual_seed(step)
        expected = another.step(*batch)
        assert bool(info.taken)
        torch.testing.assert_close(tuple(info), tuple(expected), rtol=0, atol=0, equal_nan=True)
    assert_equal(everything(model, optimizer), everything(other, another))


def test_a_step_that_leads_nowhere_finite_is_refused_even_as_a_wrapped_optimizers_first() -> None:
    """The loss and its gradient are finite here, and the loss after the step is not."""

    def barrier(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() - 0.1 * (2 - outputs).log().mean()

    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    optimizer = QLR(model, barrier, torch.optim.NAdam(model.parameters()), lr=1e6, on_nonfinite="skip", momentum=0.0)
    before = everything(model, optimizer)
    batch = torch.ones(4, 1).double(), 5 * torch.ones(4, 1).double()
    assert not bool(optimizer.step(*batch).taken)
    assert_equal(everything(model, optimizer), before)


def test_a_step_that_is_not_finite_goes_on_where_nobody_asked(make: Callable[..., QLR]) -> None:
    model = plain()
    optimizer = make(model, "cross_entropy")
    inputs = torch.randn(8, 3)
    inputs[0, 0] = float("nan")
    info = optimizer.step(inputs, torch.randint(3, (8,)))
    assert bool(info.taken)
    assert torch.isnan(info.loss)
    assert torch.isnan(model.get_parameter("0.weight")).any()


def test_state_that_cannot_be_taken_back_is_refused() -> None:
    class Counts(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1

    model = plain()
    optimizer = QLR(model, "cross_entropy", Counts(model.parameters(), lr=0.1), on_nonfinite="skip")
    message = "on_nonfinite='skip' cannot take back 'steps' of Counts, which is no tensor: use on_nonfinite='propagate'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizer.step(torch.randn(8, 3), torch.randint(3, (8,)))


def test_counts_in_groups_that_cannot_be_taken_back_are_refused() -> None:
    class CountsInGroups(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            self.param_groups[0]["steps"] = self.param_groups[0].get("steps", 0) + 1

    model = plain()
    optimizer = QLR(model, "cross_entropy", CountsInGroups(model.parameters(), lr=0.1), on_nonfinite="skip")
    message = (
        "on_nonfinite='skip' cannot take back what CountsInGroups counts in its param_groups: "
        "use on_nonfinite='propagate'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizer.step(torch.randn(8, 3), torch.randint(3, (8,)))
    # A rate that a scheduler of its own changes between steps is no such count.
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = QLR(model, "cross_entropy", inner, on_nonfinite="skip")
    for _ in range(3):
        assert bool(optimizer.step(torch.randn(8, 3), torch.randint(3, (8,))).taken)
        inner.param_groups[0]["lr"] *= 0.5


@pytest.mark.parametrize("build", [plain, lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))])
def test_a_step_that_raises_leaves_nothing_behind(make: Callable[..., QLR], build: Callable[[], nn.Sequential]) -> None:
    model = build()
    optimizer = make(model, "cross_entropy")
    other, another = copy.deepcopy((model, optimizer))
    for step in range(4):
        inputs, targets = torch.randn(16, 3), torch.randint(3, (16,))
        with pytest.raises((ValueError, RuntimeError), match="size"):
            optimizer.step(inputs, targets[:5])
        for one in (optimizer, another):
            torch.manual_seed(step)
            one.step(inputs, targets)
    assert_equal(everything(model, optimizer), everything(other, another))


# What cannot be done.


def message_of(kind: type[Exception], act: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        act()
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_models_that_cannot_be_trained_are_refused(make: Callable[..., QLR]) -> None:
    compiled = (
        "is compiled, and compiled passes have no second derivatives: give the optimizer the module that "
        "torch.compile was given"
    )

    within: Any = torch.compile(plain())

    def refusal(model: nn.Module) -> str:
        return message_of(ValueError, lambda: make(model, "cross_entropy"))

    assert refusal(within) == f"the model {compiled}"
    by_itself = plain()
    by_itself.compile()
    assert refusal(by_itself) == f"the model {compiled}"
    assert refusal(nn.Sequential(nn.Linear(3, 3), within)) == f"the module '1' {compiled}"
    scripted = torch.jit.script(plain())
    cure = "is TorchScript: give the optimizer the module that torch.jit was given"
    assert refusal(scripted) == f"the model {cure}"
    assert refusal(nn.Sequential(nn.Linear(3, 3), scripted)) == f"the module '1' {cure}"
    assert refusal(nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 3))) == (
        "the module '0' has sparse gradients: make it with sparse=False"
    )
    # Wrapping one in it takes several processes.
    sharded = type("FullyShardedDataParallel", (nn.Linear,), {})
    assert refusal(nn.Sequential(sharded(3, 3))) == (
        "the module '0' is sharded (FSDP): use DistributedDataParallel instead"
    )
    sparse = nn.Linear(3, 3)
    sparse.weight = nn.Parameter(torch.eye(3).to_sparse())
    assert refusal(sparse) == "weight is sparse: parameters must be dense"
    assert refusal(nn.Linear(3, 3, dtype=torch.complex64)) == (
        "weight is complex: train its real view (torch.view_as_real) instead"
    )
    assert refusal(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double())) == (
        "parameters must share one dtype and device: 0.weight is torch.float32 on cpu, 1.weight is torch.float64 on cpu"
    )
    assert refusal(nn.Sequential(nn.LazyLinear(3))) == (
        "0.weight has no shape yet: call the model once before making the optimizer"
    )
    assert refusal(nn.DataParallel(plain())) == (
        "DataParallel copies the parameters: use DistributedDataParallel, or the module within"
    )


def test_what_is_no_model_and_what_is_no_loss_are_refused(make: Callable[..., QLR]) -> None:
    model = plain()
    parameters: Any = model.parameters()
    for maker in (AdamQLR, KFAC):
        assert message_of(TypeError, partial(maker, parameters, "cross_entropy")) == (
            "model must be a module, got a generator: params=… says which parameters to train"
        )
    others = list(nn.Linear(3, 7, bias=False).parameters())
    for maker in (AdamQLR, KFAC):
        assert message_of(ValueError, partial(maker, model, "cross_entropy", params=others)) == (
            "a parameter of shape (7, 3) is none of the model's"
        )
    for loss in (nn.CrossEntropyLoss, nn.HuberLoss):
        assert message_of(TypeError, partial(make, model, loss)) == f"loss must be made, not a class: {loss.__name__}()"


def test_a_model_compiled_after_its_optimizer_was_made_is_refused(make: Callable[..., QLR]) -> None:
    model = normalized()
    optimizer = make(model, "cross_entropy")
    model.compile()
    assert message_of(ValueError, lambda: optimizer.step(torch.randn(8, 3), torch.randint(3, (8,)))) == (
        "the model is compiled, and compiled passes have no second derivatives: give the optimizer the module that "
        "torch.compile was given"
    )


def test_steps_called_in_other_ways_say_what_to_call(make: Callable[..., QLR]) -> None:
    model = plain()
    optimizer = make(model, "cross_entropy")
    name = type(optimizer).__name__
    inputs, targets = torch.randn(8, 3), torch.randint(3, (8,))
    expected = (
        f"{name} computes the loss and its gradient itself: call optimizer.step(inputs, targets) instead of "
        "loss.backward() and optimizer.step(); where the loss takes no targets, any tensor does, such as the inputs"
    )
    assert message_of(TypeError, optimizer.step) == expected
    assert message_of(TypeError, lambda: optimizer.step(lambda: functional.cross_entropy(model(inputs), targets))) == (
        expected
    )
    assert message_of(TypeError, lambda: optimizer.step(inputs.numpy(), targets)) == (
        "inputs must be a tensor, or a tuple or dict of tensors, got ndarray: others need forward=…, and neither "
        "microbatch nor process_group"
    )
    assert message_of(ValueError, lambda: optimizer.step(inputs[:0], targets[:0])) == "the minibatch is empty"
    with torch.inference_mode():
        assert message_of(RuntimeError, lambda: optimizer.step(inputs, targets)) == (
            "a step needs gradients, which torch.inference_mode forbids: take it outside"
        )
    # Gradients of one's own would be counted twice, or not at all.
    hook = model.get_parameter("0.weight").register_hook(lambda gradient: 2 * gradient)
    assert message_of(ValueError, lambda: optimizer.step(inputs, targets)) == (
        "0.weight has a hook on its gradient, which the curvature knows nothing of: remove it"
    )
    hook.remove()
    optimizer.step(inputs, targets)


# Other habits.


@pytest.mark.parametrize("build", [normalized, plain])
def test_harmless_habits_change_no_number(make: Callable[..., QLR], build: Callable[[], nn.Sequential]) -> None:
    """Gradients cleared, clipped or added to, steps where gradients are off, averaged weights, evaluation between."""
    some = [(torch.randn(16, 3), torch.randint(3, (16,))) for _ in range(8)]
    model = build()
    optimizer = make(model, "cross_entropy")
    other, another = copy.deepcopy((model, optimizer))
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    shadow = [parameter.detach().clone() for parameter in model.parameters()]
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def clear(step: int) -> None:
        optimizer.zero_grad(set_to_none=True)

    def clear_some(step: int) -> None:
        model[0].weight.grad = None

    def accumulate(step: int) -> None:
        model.eval()
        functional.cross_entropy(model(some[step][0]), some[step][1]).backward()
        model.train()

    def clip(step: int) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    def evaluate_average(step: int) -> None:
        kept = [parameter.data for parameter in model.parameters()]
        for parameter, value in zip(model.parameters(), shadow, strict=True):
            parameter.data = value
        model.eval()
        model(some[0][0])
        model.train()
        for parameter, value in zip(model.parameters(), kept, strict=True):
            parameter.data = value

    def swap_in_place(step: int) -> None:
        kept = [parameter.detach().clone() for parameter in model.parameters()]
        for parameters in (shadow, kept):
            for parameter, value in zip(model.parameters(), parameters, strict=True):
                parameter.data.copy_(value)

    habits = [clear, clear_some, accumulate, clip, evaluate_average, swap_in_place, clear_some]
    for step, batch in enumerate(some):
        torch.manual_seed(step)
        with torch.no_grad() if step % 2 else torch.enable_grad():
            info = optimizer.step(batch[0].clone().requires_grad_(step == 3), batch[1])
        average.update_parameters(model)
        torch.manual_seed(step)
        wanted = another.step(*batch)
        torch.testing.assert_close(tuple(info), tuple(wanted), rtol=1e-4 if build is plain else 0, atol=1e-7)
        if step < len(habits):
            habits[step](step)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-6)
    assert calls == ["before", "after"] * len(some)


def test_two_optimizers_may_share_a_model(make: Callable[..., QLR]) -> None:
    """As in adversarial training: each moves its own part, be the other's frozen meanwhile or not."""
    model = nn.ModuleDict({"one": plain(), "other": plain()})
    together = nn.Sequential(model["one"], model["other"])
    parts = {name: list(module.parameters()) for name, module in model.items()}
    if make is qlr_over_nadam:
        optimizers = {
            name: QLR(together, "cross_entropy", torch.optim.NAdam(part), params=part) for name, part in parts.items()
        }
    else:
        optimizers = {name: make(together, "cross_entropy", params=part) for name, part in parts.items()}
    for number in range(6):
        inputs = torch.randn(30, 3)
        targets = inputs.argmax(dim=1)
        for name, optimizer in optimizers.items():
            still = parts["other" if name == "one" else "one"]
            before = [parameter.detach().clone() for parameter in still]
            for parameter in still:
                parameter.requires_grad_(number % 3 == 0)
            own = [parameter.detach().clone() for parameter in parts[name]]
            info = optimizer.step(inputs, targets)
            torch.testing.assert_close([parameter.detach() for parameter in still], before, rtol=0, atol=0)
            assert not any(map(torch.equal, parts[name], own))
            change = functional.cross_entropy(together(inputs), targets).item() - float(info.loss)
            assert float(info.true_change) == pytest.approx(change, rel=1e-3, abs=1e-6)
            for parameter in still:
                parameter.requires_grad_(True)


def test_two_optimizers_of_the_same_parameters_take_turns(make: Callable[..., QLR]) -> None:
    model = plain()
    some = [(torch.randn(16, 3), torch.randint(3, (16,))) for _ in range(6)]
    optimizers = [make(model, "cross_entropy"), QLR(model, "cross_entropy", "gradient")]
    for step, batch in enumerate(some):
        before = copy.deepcopy(model)
        info = optimizers[step % 2].step(*batch)
        loss, moved_to = (functional.cross_entropy(network(batch[0]), batch[1]).item() for network in (before, model))
        assert float(info.loss) == pytest.approx(float(loss), rel=1e-5)
        assert float(info.true_change) == pytest.approx(float(moved_to - loss), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_of_a_perceptrons_layers_are_called(make: Callable[..., QLR], register: str) -> None:
    model = plain()
    optimizer = make(model, "cross_entropy")
    calls = []
    getattr(model[2], register)(lambda *_: calls.append(1))
    optimizer.step(torch.randn(8, 3), torch.randint(3, (8,)))
    assert calls


class Ensemble(nn.Module):
    """Calls its parts what networks side by side call their number."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]))

    def forward(self, inputs: Tensor) -> Tensor:
        return sum(part(inputs).tanh() for part in getattr(self, self.name))


def test_models_may_have_members_of_their_own(make: Callable[..., QLR]) -> None:
    inputs, targets = torch.randn(8, 3), torch.randint(3, (8,))
    ends = []
    for name in ("members", "parts"):
        torch.manual_seed(1)
        model = Ensemble(name)
        info = make(model, "cross_entropy").step(inputs, targets)
        assert info.loss.dim() == 0
        ends.append([parameter.detach() for parameter in model.parameters()])
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_kfac_names_a_layer_that_runs_without_gradients() -> None:
    class Partial(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            with torch.no_grad():
                features = self[0](input)
            return self[1](features)

    model = Partial(nn.Linear(3, 4), nn.Linear(4, 3))
    batch = torch.randn(8, 3), torch.randint(3, (8,))
    weight = model.get_parameter("0.weight")
    kept = weight.clone()
    message = "K-FAC needs gradients of each layer that it trains: freeze the module '0', which has none"
    assert message_of(ValueError, lambda: KFAC(model, "cross_entropy").step(*batch)) == message
    model[0].requires_grad_(False)
    KFAC(model, "cross_entropy").step(*batch)
    # Others leave it alone.
    model[0].requires_grad_(True)
    AdamQLR(model, "cross_entropy").step(*batch)
    assert torch.equal(weight, kept)


def test_kfac_names_a_layer_that_the_outputs_do_not_depend_on() -> None:
    class Idle(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            self[1](input)
            outputs: Tensor = self[0](input)
            return outputs

    batch = torch.randn(8, 3), torch.randint(3, (8,))
    for rest in (nn.Identity(), nn.PReLU()):
        optimizer = KFAC(nn.Sequential(Idle(nn.Linear(3, 3), nn.Linear(3, 4)), rest), "cross_entropy")
        assert message_of(ValueError, partial(optimizer.step, *batch)) == (
            "K-FAC needs gradients of each layer that it trains: freeze the module '0.1', which has none"
        )


def test_kfac_trains_layers_that_are_called_by_keyword() -> None:
    class ByKeyword(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            outputs: Tensor = self[2](input=self[1](self[0](input=input)))
            return outputs

    ends = []
    for kind in (nn.Sequential, ByKeyword):
        torch.manual_seed(0)
        model = kind(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
        KFAC(model, "cross_entropy").step(torch.randn(8, 3), torch.randint(3, (8,)))
        ends.append([parameter.detach() for parameter in model.parameters()])
    torch.testing.assert_close(*ends)


def test_a_models_file_is_no_larger_than_its_parameters(make: Callable[..., QLR], tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 3))
    optimizer = make(model, "cross_entropy")
    optimizer.step(torch.randn(8, 100), torch.randint(3, (8,)))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.pt").stat().st_size < size + 5_000
    kept = copy.deepcopy(model)
    assert kept.get_parameter("2.bias").untyped_storage().nbytes() == 12
