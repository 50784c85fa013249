"""Optimizers that see gradients only, against PyTorch's own and against their formulas."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr.optim.adam import Adam
from adamqlr.optim.baydin import BaydinSGD
from adamqlr.optim.sgd import SGD

STEPS = 25


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def minibatches() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(10, 5, dtype=torch.float64), torch.randint(3, (10,))) for _ in range(STEPS)]


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}),
        (Adam, torch.optim.Adam, {}),
        (Adam, torch.optim.Adam, {"lr": 0.02, "eps": 1e-3, "betas": (0.8, 0.95)}),
    ],
)
def test_equal_torch_optim(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    model = network()
    reference = copy.deepcopy(model)
    optimizer = ours(model, "cross_entropy", **options)
    expected = theirs(reference.parameters(), **options)
    for inputs, targets in minibatches():
        info = optimizer.step(inputs, targets)
        expected.zero_grad()
        loss = nn.functional.cross_entropy(reference(inputs), targets)
        loss.backward()
        expected.step()
        assert float(info.loss) == pytest.approx(float(loss), rel=1e-12)
        assert float(info.lr) == pytest.approx(options.get("lr", 1e-3))
    for moved, wanted in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(moved, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(list(model.buffers()), list(reference.buffers()), rtol=1e-12, atol=1e-12)


def test_hypergradient_descent_equals_its_formula() -> None:
    model = network()
    reference = copy.deepcopy(model)
    optimizer = BaydinSGD(model, "cross_entropy", lr=0.05, hypergradient_lr=0.01)
    lr, last = 0.05, None
    for inputs, targets in minibatches():
        info = optimizer.step(inputs, targets)
        loss = nn.functional.cross_entropy(reference(inputs), targets)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(reference.parameters()))])
        lr += 0.0 if last is None else 0.01 * float(gradient @ last)
        last = gradient
        theta = nn.utils.parameters_to_vector(reference.parameters()).detach() - lr * gradient
        nn.utils.vector_to_parameters(theta, reference.parameters())
        assert float(info.lr) == pytest.approx(lr, rel=1e-12)
        moved = nn.utils.parameters_to_vector(model.parameters()).detach()
        torch.testing.assert_close(moved, theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (SGD, {"lr": 0.1, "momentum": 0.9}),
        (Adam, {}),
        (BaydinSGD, {"lr": 0.1, "hypergradient_lr": 0.01}),
    ],
)
def test_state_round_trips(factory: Any, options: dict[str, Any]) -> None:
    batches = minibatches()
    model = network()
    optimizer = factory(model, "cross_entropy", **options)
    for batch in batches[:5]:
        optimizer.step(*batch)
    resumed = copy.deepcopy(model)
    again = factory(resumed, "cross_entropy", **options)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for batch in batches[5:10]:
        optimizer.step(*batch)
        again.step(*batch)
    for moved, wanted in zip(resumed.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(moved, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("factory", [SGD, Adam])
def test_empty_minibatches_and_frozen_models_are_refused(factory: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        factory(nn.Linear(2, 1), "half_mse", lr=0.1).step(torch.zeros(0, 2), torch.zeros(0, 1))
    with pytest.raises(ValueError, match="no trainable"):
        factory(nn.Linear(2, 1).requires_grad_(False), "half_mse", lr=0.1)


def test_negative_hypergradient_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        BaydinSGD(nn.Linear(2, 1), "half_mse", lr=-0.1, hypergradient_lr=0.01)


@pytest.mark.parametrize(("ours", "theirs"), [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_a_scheduler_sets_the_rate(ours: Any, theirs: Any) -> None:
    model = network()
    reference = copy.deepcopy(model)
    optimizer, expected = ours(model, "cross_entropy", lr=0.1), theirs(reference.parameters(), lr=0.1)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(one, 0.7) for one in (optimizer, expected)]
    for inputs, targets in minibatches()[:5]:
        rate = schedulers[1].get_last_lr()[0]
        assert float(optimizer.step(inputs, targets).lr) == pytest.approx(rate)
        expected.zero_grad()
        nn.functional.cross_entropy(reference(inputs), targets).backward()
        expected.step()
        for scheduler in schedulers:
            scheduler.step()
    for moved, wanted in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(moved, wanted, rtol=1e-12, atol=1e-12)


def test_groups_with_rates_of_their_own_are_refused_where_they_would_be_passed_over() -> None:
    model = network()
    optimizer = SGD(model, "cross_entropy", lr=0.1)
    extra = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    model.register_parameter("extra", extra)
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    with pytest.raises(ValueError, match=r"lr is one for all parameters: param_groups\[1\] has 0.5, param_groups\[0\]"):
        optimizer.step(*minibatches()[0])
