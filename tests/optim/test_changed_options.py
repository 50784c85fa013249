"""Options that change between steps, differ between groups, or are at the end of their range."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim.adam import Adam
from adamqlr.optim.baydin import BaydinSGD
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.optim.sgd import SGD
from adamqlr.optim.state import State


def test_momentum_that_is_switched_on_again_begins_without_a_previous_update() -> None:
    def run(*momenta: float) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        optimizer = QLR(model, "half_mse", "gradient", lr=0.1, momentum=momenta[0], damping=0.0, adapt_damping=False)
        for momentum in momenta:
            optimizer.param_groups[0]["momentum"] = momentum
            optimizer.step(torch.ones(6, 4), torch.ones(6, 1))
        return [parameter.detach().clone() for parameter in model.parameters()]

    # The step after the pause is that of no momentum, whatever stood before it.
    for found, expected in zip(run(0.9, 0.9, 0.0, 0.9), run(0.9, 0.9, 0.0, 0.0), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_refused_step_leaves_nothing_in_momentum_that_it_began() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 4), torch.randn(8, 1)
    optimizer = AdamQLR(nn.Linear(4, 1), "half_mse", on_nonfinite="skip")
    optimizer.step(inputs, targets)
    optimizer.param_groups[0]["momentum"] = 0.9
    assert not optimizer.step(inputs * math.nan, targets).taken
    assert optimizer.step(inputs, targets).taken


def test_a_groups_own_damping_is_refused() -> None:
    model = nn.Linear(4, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "damping": 7.0}]
    with pytest.raises(ValueError, match=r"damping is one for all parameters: param_groups\[1\] has 7.0"):
        AdamQLR(model, "half_mse", params=groups)
    optimizer = AdamQLR(model, "half_mse", params=[{"params": [model.weight]}])
    with pytest.raises(ValueError, match=r"damping is one for all parameters: param_groups\[1\] has 7.0"):
        optimizer.add_param_group({"params": [model.bias], "damping": 7.0})


def test_a_group_without_a_learning_rate_is_named() -> None:
    model = nn.Linear(4, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": None}]
    with pytest.raises(ValueError, match="lr of a parameter group must be a number"):
        AdamQLR(model, "half_mse", params=groups).step(torch.randn(8, 4), torch.randn(8, 1))


@pytest.mark.parametrize("resolution", [0, 0.0])
def test_a_resolution_of_no_units_is_one_too(resolution: float) -> None:
    torch.manual_seed(0)
    optimizer = AdamQLR(nn.Linear(4, 1), "half_mse", damping=1.0, resolution=resolution)
    assert optimizer.step(torch.randn(8, 4), torch.randn(8, 1)).damping == 0.5


def test_momentum_can_be_switched_on_after_a_state_was_loaded() -> None:
    """It begins as without the load; trainers that wrap optimizers load them their own state."""

    def run(loads: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        optimizer = QLR(model, "half_mse", "gradient")
        inputs, targets = torch.randn(8, 4), torch.randn(8, 1)
        optimizer.step(inputs, targets)
        if loads:
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.param_groups[0]["momentum"] = 0.9
        for _ in range(2):
            optimizer.step(inputs, targets)
        return [parameter.detach() for parameter in model.parameters()]

    for found, expected in zip(run(True), run(False), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_nothing_moves_while_all_learning_rates_are_zero(groups: int) -> None:
    """Nor do they move by momentum; what rounding leaves below zero is nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    params = [{"params": model[0].parameters()}, {"params": model[2].parameters()}] if groups == 2 else None
    optimizer = QLR(model, "half_mse", "gradient", momentum=0.9, params=params)
    inputs, targets = torch.randn(8, 4), torch.randn(8, 1)
    for _ in range(3):
        optimizer.step(inputs, targets)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[-1]["lr"] = 0.0 if groups == 1 else -1e-17
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        optimizer.step(inputs, targets)
    assert all(map(torch.equal, before, model.parameters()))


def paused(zero: Any, momentum: float | None, choose_lr: bool) -> bool:
    """Tell whether nothing moves at a learning rate of zero after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = QLR(model, "half_mse", "gradient", lr=None if choose_lr else 0.1, momentum=momentum)
    inputs, targets = torch.randn(8, 4), torch.randn(8, 1)
    for _ in range(3):
        optimizer.step(inputs, targets)
    optimizer.param_groups[0]["lr"] = zero
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        optimizer.step(inputs, targets)
    return all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("choose_lr", [True, False])
@pytest.mark.parametrize("momentum", [0.9, None])
@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0.0), np.float32(0)], ids=repr)
def test_a_learning_rate_of_zero_pauses_in_any_form(zero: Any, momentum: float | None, choose_lr: bool) -> None:
    assert paused(zero, momentum, choose_lr)


@pytest.mark.gpu
def test_a_learning_rate_of_zero_on_a_device_is_not_waited_for() -> None:
    model = nn.Linear(4, 1).cuda()
    optimizer = QLR(model, "half_mse", "gradient", momentum=0.9)
    inputs, targets = torch.randn(8, 4).cuda(), torch.randn(8, 1).cuda()
    optimizer.step(inputs, targets)
    optimizer.param_groups[0]["lr"] = torch.zeros((), device="cuda")
    before = model.weight.detach().clone()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step(inputs, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(model.weight, before)


def test_a_learning_rate_of_zero_pauses_one_of_networks_side_by_side() -> None:
    torch.manual_seed(0)
    pack = PerceptronPack([nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)) for _ in range(2)])
    optimizer = QLR(pack, "half_mse", "gradient", momentum=0.9)
    inputs, targets = torch.randn(2, 8, 4), torch.randn(2, 8, 1)
    for _ in range(3):
        optimizer.step(inputs, targets)
    optimizer.param_groups[0]["lr"] = (0.0, 1.0)
    before = [parameter.detach().clone() for parameter in pack.parameters()]
    optimizer.step(inputs, targets)
    assert all(torch.equal(now[0], then[0]) for now, then in zip(pack.parameters(), before, strict=True))
    assert not any(torch.equal(now[1], then[1]) for now, then in zip(pack.parameters(), before, strict=True))


class Faster:
    """The gradient, times a number that grows."""

    defaults: Mapping[str, Any] = {"growth": 1.5}

    def __init__(self, name: str, kind: str = "number") -> None:
        self.name, self.kind = name, kind

    def bind(self, flat: FlatParameters, state: State) -> None:
        self.rate = state.number(self.name, 1.0) if self.kind == "number" else state.counter(self.name)

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        torch.mul(gradient.buffer, self.rate, out=out)
        self.rate.add_(1)


@pytest.mark.parametrize("kind", ["number", "counter"])
@pytest.mark.parametrize("name", ["lr", "damping", "weight_decay", "params", "initial_lr"])
def test_a_directions_number_must_not_be_called_like_qlrs_own(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"param_groups has '{name}' already: give the direction's number another"):
        QLR(nn.Linear(4, 1), "half_mse", Faster(name, kind))


@pytest.mark.parametrize("name", ["rate", "growth"])
def test_what_is_put_in_the_place_of_a_directions_number_counts(name: str) -> None:
    direction = Faster(name)
    optimizer = QLR(nn.Linear(4, 1), "half_mse", direction)
    batch = torch.randn(8, 4), torch.randn(8, 1)
    optimizer.step(*batch)
    optimizer.param_groups[0][name] = 10.0
    optimizer.step(*batch)
    assert float(optimizer.param_groups[0][name]) == float(direction.rate) == 11.0
    del optimizer.param_groups[0][name]
    with pytest.raises(ValueError, match=f"'{name}' was removed from param_groups"):
        optimizer.step(*batch)


def test_two_numbers_of_a_direction_must_not_have_one_name() -> None:
    class Twice(Faster):
        def bind(self, flat: FlatParameters, state: State) -> None:
            super().bind(flat, state)
            super().bind(flat, state)

    with pytest.raises(ValueError, match="param_groups has 'rate' already"):
        QLR(nn.Linear(4, 1), "half_mse", Twice("rate"))


@pytest.mark.parametrize("make", [AdamQLR, lambda model, loss: Adam(model, loss, lr=0.1)])
def test_a_count_of_steps_that_is_set_anew_is_begun_anew(make: Any) -> None:
    torch.manual_seed(0)
    model, batch = nn.Linear(4, 1), (torch.randn(8, 4), torch.randn(8, 1))
    optimizer = make(model, "half_mse")
    for _ in range(3):
        optimizer.step(*batch)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()
    optimizer.param_groups[0]["step"] = 0
    other = copy.deepcopy(model)
    fresh = make(other, "half_mse")
    if make is AdamQLR:
        fresh.param_groups[0]["damping"] = optimizer.damping
    for either in (optimizer, fresh):
        either.step(*batch)
    assert float(optimizer.param_groups[0]["step"]) == 1
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("hypergradient_lr", [0.0, 0.1])
def test_hypergradient_descent_goes_on_from_a_learning_rate_that_is_set(hypergradient_lr: float) -> None:
    torch.manual_seed(0)
    model, batch = nn.Linear(4, 1), (torch.randn(8, 4), torch.randn(8, 1))
    optimizer = BaydinSGD(model, "half_mse", lr=0.1, hypergradient_lr=hypergradient_lr)
    optimizer.param_groups[0]["lr"] = 0.001
    assert float(optimizer.step(*batch).lr) == pytest.approx(0.001)
    found = optimizer.step(*batch)
    assert (float(found.lr) == pytest.approx(0.001)) == (hypergradient_lr == 0)
    assert float(optimizer.param_groups[0]["lr"]) == float(found.lr)


WRONG: list[tuple[Any, str, Any, str]] = [
    (AdamQLR, "lr", -0.1, "lr must be at least 0"),
    (AdamQLR, "lr", None, "lr of a parameter group must be a number"),
    (AdamQLR, "lr_clipping", -0.1, "lr_clipping must be positive or None"),
    (AdamQLR, "damping", -1.0, "damping must be at least 0"),
    (AdamQLR, "damping_decrease", 3.0, r"damping_decrease must be in \(0, 1\]"),
    (AdamQLR, "max_damping", -1.0, "max_damping must be at least min_damping"),
    (AdamQLR, "curvature", "gauss-newton", "curvature must be 'fisher' or 'hessian'"),
    (AdamQLR, "on_nonfinite", "Skip", "on_nonfinite must be 'propagate' or 'skip'"),
    (AdamQLR, "adapt_damping", "no", "adapt_damping must be True or False"),
    (AdamQLR, "betas", (0.9, 1.5), r"betas must be in \[0, 1\)"),
    (KFAC, "fisher", "Exact", "fisher must be 'sampled' or 'exact'"),
    (KFAC, "ema_decay", 2.0, r"ema_decay must be in \[0, 1\]"),
    (lambda *given: SGD(*given, lr=0.1), "momentum", -0.9, "momentum must be at least 0"),
    (lambda *given: Adam(*given, lr=0.1), "lr", -0.1, "lr must be at least 0"),
    (lambda *given: BaydinSGD(*given, lr=0.1, hypergradient_lr=0.1), "lr", -0.1, "lr must be at least 0"),
]


@pytest.mark.parametrize(("make", "name", "value", "message"), WRONG, ids=lambda value: str(value)[:20])
def test_options_are_checked_where_they_change(make: Any, name: str, value: Any, message: str) -> None:
    optimizer = make(nn.Linear(4, 1), "half_mse")
    batch = torch.randn(8, 4), torch.randn(8, 1)
    optimizer.step(*batch)
    kept, optimizer.param_groups[0][name] = optimizer.param_groups[0][name], value
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            optimizer.step(*batch)
    optimizer.param_groups[0][name] = kept
    optimizer.step(*batch)


def test_options_of_other_groups_are_checked_too() -> None:
    model = nn.Linear(4, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": -1.0}]
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        AdamQLR(model, "half_mse", params=groups).step(torch.randn(8, 4), torch.randn(8, 1))


def test_options_are_taken_in_all_forms_that_the_constructor_takes() -> None:
    def run(given: Any, set_later: Any) -> list[Tensor]:
        torch.manual_seed(0)
        pack = PerceptronPack([nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)) for _ in range(2)])
        optimizer = AdamQLR(pack, "half_mse", lr_clipping=given)
        if set_later is not None:
            optimizer.param_groups[0]["lr_clipping"] = set_later
        optimizer.step(torch.randn(2, 8, 4), torch.randn(2, 8, 1))
        return [parameter.detach() for parameter in pack.parameters()]

    assert all(map(torch.equal, run([1e-3, None], None), run(None, [1e-3, None])))


@pytest.mark.parametrize("name", ["model", "loss"])
def test_model_and_loss_are_those_that_an_optimizer_was_made_with(name: str) -> None:
    model = nn.Linear(4, 1)
    optimizer = AdamQLR(model, "half_mse")
    with pytest.raises(AttributeError, match=f"keeps the {name} that it was made with: make a new optimizer"):
        setattr(optimizer, name, nn.MSELoss())
    assert optimizer.model is model
    assert copy.deepcopy(optimizer).step(torch.randn(8, 4), torch.randn(8, 1)).rho.isfinite()


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
@pytest.mark.parametrize("momentum", [0.9, None])
def test_a_state_that_is_saved_where_momentum_has_just_been_switched_on_can_be_loaded(
    make: Any, momentum: float | None
) -> None:
    def made() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
        return model, make(model, "half_mse", momentum=0.0)

    inputs, targets = torch.ones(6, 4), torch.ones(6, 1)
    model, optimizer = made()
    optimizer.step(inputs, targets)
    for group in optimizer.param_groups:
        group["momentum"] = momentum
    other, another = made()
    other.load_state_dict(model.state_dict())
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(2):
        for one in (optimizer, another):
            # K-FAC draws its targets.
            torch.manual_seed(seed)
            one.step(inputs, targets)
    torch.testing.assert_close(list(other.parameters()), list(model.parameters()), rtol=0, atol=0)


def test_a_layer_that_was_frozen_before_momentum_came_can_be_saved_once_it_is_free() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    optimizer, inputs, targets = AdamQLR(model, "half_mse"), torch.ones(6, 4), torch.ones(6, 1)
    optimizer.step(inputs, targets)
    model[0].requires_grad_(False)
    optimizer.step(inputs, targets)
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.step(inputs, targets)
    model[0].requires_grad_(True)
    other = copy.deepcopy(model)
    another = AdamQLR(other, "half_mse")
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one in (optimizer, another):
        one.step(inputs, targets)
    torch.testing.assert_close(list(other.parameters()), list(model.parameters()), rtol=0, atol=0)


def grouped(make: Any) -> tuple[nn.Sequential, Any, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    optimizer = make(model, "half_mse", params=[{"params": list(layer.parameters())} for layer in (model[0], model[2])])
    batch = torch.randn(6, 4), torch.randn(6, 1)
    optimizer.step(*batch)
    return model, optimizer, batch


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
def test_a_group_that_is_taken_out_is_trained_no_more(make: Any) -> None:
    model, optimizer, batch = grouped(make)
    before = copy.deepcopy(list(model.parameters()))
    del optimizer.param_groups[1]
    for _ in range(2):
        optimizer.step(*batch)
    moved = [not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)]
    assert moved == [True, True, False, False]


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
def test_a_parameter_has_the_learning_rate_of_the_group_that_it_was_moved_to(make: Any) -> None:
    model, optimizer, batch = grouped(make)
    groups = optimizer.param_groups
    groups[0]["params"].append(groups[1]["params"].pop(0))
    groups[1]["lr"] = 0.0
    before = copy.deepcopy(list(model.parameters()))
    optimizer.step(*batch)
    moved = [not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)]
    assert moved == [True, True, True, False]


def test_parameters_that_are_put_into_groups_by_hand_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    batch = torch.randn(6, 4), torch.randn(6, 1)
    optimizer = AdamQLR(model, "half_mse", params=model[0].parameters())
    optimizer.param_groups[0]["params"] += list(model[2].parameters())
    with pytest.raises(ValueError, match=r"^parameters were put into param_groups: use add_param_group"):
        optimizer.step(*batch)
    optimizer = AdamQLR(model, "half_mse", params=model[0].parameters())
    optimizer.step(*batch)
    optimizer.param_groups[0]["params"] += list(model[2].parameters())
    with pytest.raises(ValueError, match=r"^parameters cannot join after the first step"):
        optimizer.step(*batch)


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
def test_a_first_step_that_the_model_refuses_is_none(make: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    optimizer = make(model, "half_mse", params=model[2].parameters())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        optimizer.step(torch.randn(6, 3), torch.randn(6, 1))
    assert not optimizer.state_dict()["has_started"]
    optimizer.add_param_group({"params": list(model[0].parameters())})
    assert optimizer.step(torch.randn(6, 4), torch.randn(6, 1)).taken
