"""Momentum that the model chooses beside a learning rate that is bounded or scheduled, and directions that coincide."""

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
