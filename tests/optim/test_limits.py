"""Steps under a bounded or scheduled learning rate, beside momentum that the model chooses, and parallel directions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.state import State

LIMITED: dict[str, tuple[Any, dict[str, Any]]] = {
    "bound": (AdamQLR, {"lr_clipping": 0.05}),
    "rescaling": (AdamQLR, {"lr_rescaling": 0.5}),
    "fixed and rescaled": (AdamQLR, {"lr": 5.0, "lr_rescaling": 0.01}),
    "schedule": (AdamQLR, {}),
    "K-FAC, bound": (KFAC, {"lr_clipping": 0.01}),
    "K-FAC, schedule": (KFAC, {}),
}


def task(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 3)).to(dtype)
    inputs = torch.randn(300, 10, dtype=dtype)
    return model, inputs, (inputs @ torch.randn(10, 3, dtype=dtype)).argmax(1)


@pytest.mark.parametrize("limited", LIMITED)
def test_the_momentum_is_best_for_what_a_limit_leaves_of_the_learning_rate(limited: str) -> None:
    model, inputs, targets = task()
    make, options = LIMITED[limited]
    optimizer = make(model, "cross_entropy", momentum=None, **options)
    if "schedule" in limited:
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1)
    for _ in range(100):
        # No step climbs the model's own hill.
        assert float(optimizer.step(inputs, targets).model_change) <= 0


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
@pytest.mark.parametrize("factor", [0.25, 1e-6, 0.0])
def test_a_schedule_shortens_the_whole_step(make: Any, factor: float) -> None:
    steps = []
    for factors in ([1.0] * 5, [1.0] * 4 + [factor]):
        model, inputs, targets = task()
        optimizer = make(model, "cross_entropy", momentum=None)
        for rate in factors:
            before = nn.utils.parameters_to_vector(model.parameters()).detach()
            optimizer.param_groups[0]["lr"] = rate
            torch.manual_seed(1)
            info = optimizer.step(inputs, targets)
        steps.append((nn.utils.parameters_to_vector(model.parameters()).detach() - before, info))
    (whole, info), (short, shortened) = steps
    assert float(info.momentum) != 0
    torch.testing.assert_close(short, factor * whole, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(shortened.momentum, factor * info.momentum)


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
def test_a_bound_bounds_whole_steps(make: Any) -> None:
    distances = []
    for bound in (None, 1e-6):
        model, inputs, targets = task()
        optimizer = make(model, "cross_entropy", momentum=None, lr_clipping=bound)
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        for _ in range(10):
            optimizer.step(inputs, targets)
        distances.append(float((nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm()))
    assert distances[1] < 1e-2 * distances[0]


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_a_group_whose_learning_rate_becomes_zero_stays(momentum: float | None) -> None:
    model, inputs, targets = task()
    assert isinstance(model, nn.Sequential)
    first, last = model[0], model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    groups = [{"params": list(layer.parameters())} for layer in (first, last)]
    optimizer = AdamQLR(model, "cross_entropy", params=groups, momentum=momentum)
    for _ in range(3):
        optimizer.step(inputs, targets)
    optimizer.param_groups[1]["lr"] = 0.0
    before = [layer.weight.clone() for layer in (first, last)]
    optimizer.step(inputs, targets)
    assert torch.equal(last.weight, before[1])
    assert not torch.equal(first.weight, before[0])


class Signs:
    """The sign of the mean gradient: with one input after another the same, up or down."""

    def __init__(self) -> None:
        self.defaults = {"beta": 0.9}

    def bind(self, flat: FlatParameters, state: State) -> None:
        self._group, self._mean = state.group, state.vector("mean")

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        self._mean.lerp_(gradient.buffer, 1 - self._group["beta"])
        torch.sign(self._mean, out=out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_of_two_directions_that_are_parallel_the_first_does(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(4, 1).to(dtype), torch.randn(100, 4, dtype=dtype)
    targets = 10 * inputs.sum(dim=1, keepdim=True) + 10
    optimizer = QLR(model, "half_mse", Signs(), momentum=None)
    infos = [optimizer.step(inputs, targets) for _ in range(10)]
    assert all(abs(float(info.momentum)) < 1 for info in infos)
    assert float(infos[-1].loss) < 1e-3 * float(infos[0].loss)
