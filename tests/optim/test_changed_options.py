"""Options that change between steps, differ between groups, or are at the end of their range."""

import math

import pytest
import torch
from torch import Tensor, nn

from adamqlr import QLR, AdamQLR


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
