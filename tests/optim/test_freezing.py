"""Parameters that are frozen for a while: what is averaged for them stands for the steps that they have seen."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim.adam import Adam


def network() -> Any:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.LayerNorm(4), nn.PReLU(), nn.Linear(4, 3))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(24, 5), torch.randint(3, (24,))


def qlr_over_nadam(model: nn.Module, loss: Any, **options: Any) -> QLR:
    return QLR(model, loss, torch.optim.NAdam(model.parameters()), **options)


@pytest.mark.parametrize("make", [AdamQLR, qlr_over_nadam, KFAC])
def test_what_was_frozen_at_the_first_step_cannot_be_freed(make: Callable[..., QLR]) -> None:
    model, some = network(), batch()
    model[-1].requires_grad_(False)
    optimizer = make(model, "cross_entropy", params=list(model.parameters()))
    optimizer.step(*some)
    model[-1].requires_grad_(True)
    message = (
        "4.weight was frozen at the first step, and cannot join after the first step: make the optimizer anew with "
        "params=…"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizer.step(*some)
    model[-1].requires_grad_(False)
    optimizer.step(*some)


def test_what_is_freed_before_the_first_step_is_trained() -> None:
    model, some = network(), batch()
    model[0].requires_grad_(False)
    optimizer = KFAC(model, "cross_entropy", params=list(model.parameters()))
    model[0].requires_grad_(True)
    before = model[0].weight.clone()
    optimizer.step(*some)
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize("loads", [False, True])
def test_kfacs_averages_are_means_after_a_pause(loads: bool, tmp_path: Path) -> None:
    model, some = network(), batch()
    # Nothing moves, so that layers have the same inputs in all steps.
    optimizer = KFAC(model, "cross_entropy", lr=0.0, momentum=0.0)
    optimizer.step(*some)
    factor = optimizer.state[model[0].weight]["input_factor"].clone()
    drawn = {layer: optimizer.state[layer.weight] for layer in (model[2], model[3])}
    before = {layer: [v.clone() for k, v in s.items() if "diagonal" in k] for layer, s in drawn.items()}
    paused = nn.ModuleList(model[:-1])
    paused.requires_grad_(False)
    for _ in range(30):
        optimizer.step(*some)
    if loads:
        torch.save(optimizer.state_dict(), tmp_path / "state.pt")
        optimizer.load_state_dict(torch.load(tmp_path / "state.pt"))
    paused.requires_grad_(True)
    optimizer.step(*some)
    weight = float(optimizer.param_groups[0]["weight"])
    assert weight > 15
    torch.testing.assert_close(optimizer.state[model[0].weight]["input_factor"] / weight, factor)
    # Others are of random targets; what was averaged before counts as all steps but the last.
    for layer, averages in before.items():
        found = [value for name, value in optimizer.state[layer.weight].items() if "diagonal" in name]
        for value, old in zip(found, averages, strict=True):
            assert (value >= 0.9999 * (weight - 1) * old).all()
    assert all("left_at" not in state for state in optimizer.state.values())


@pytest.mark.parametrize("loads", [False, True])
@pytest.mark.parametrize("maker", [AdamQLR, Adam])
def test_adams_moments_are_means_after_a_pause(maker: Any, loads: bool) -> None:
    model, some, betas = network(), batch(), (0.9, 0.99)
    optimizer = maker(model, "cross_entropy", betas=betas)

    def means() -> list[Tensor]:
        steps, state = float(optimizer.param_groups[0]["step"]), optimizer.state[model[0].weight]
        return [state[name] / (1 - beta**steps) for name, beta in zip(("exp_avg", "exp_avg_sq"), betas, strict=True)]

    optimizer.step(*some)
    optimizer.step(*some)
    before = means()
    model[0].requires_grad_(False)
    if loads:
        optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(40):
        optimizer.step(*some)
    model[0].requires_grad_(True)
    optimizer.step(*some)
    gradient = model[0].weight.grad
    assert gradient is not None
    wanted = [
        (beta * (1 - beta**42) * mean + (1 - beta) * value) / (1 - beta**43)
        for mean, value, beta in zip(before, (gradient, gradient.square()), betas, strict=True)
    ]
    torch.testing.assert_close(means(), wanted)


def test_kfac_freezes_a_layer_as_a_whole_once_it_has_started() -> None:
    model, some = network(), batch()
    optimizer = KFAC(model, "cross_entropy")
    optimizer.step(*some)
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="input_factor"):
        optimizer.step(*some)


def test_a_freed_layer_has_no_previous_update() -> None:
    """Its update was zero while it was frozen: its first step is along the gradient alone."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = QLR(model, "half_mse", "gradient", lr=0.1, momentum=0.9, damping=0.0, adapt_damping=False)
    inputs, targets = torch.randn(24, 5), torch.randn(24, 1)
    for _ in range(3):
        optimizer.step(inputs, targets)
    model[0].requires_grad_(False)
    optimizer.step(inputs, targets)
    model[0].requires_grad_(True)
    before = model[0].weight.detach().clone()
    optimizer.step(inputs, targets)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.1 * model[0].weight.grad)


def test_freezing_a_bias_alone_under_kfac_names_what_to_freeze() -> None:
    model, some = network(), batch()
    optimizer = KFAC(model, "cross_entropy")
    optimizer.step(*some)
    model[0].bias.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"^'input_factor' of 0\.weight has the shape .* freeze and free a layer as a whole$"
    ):
        optimizer.step(*some)
