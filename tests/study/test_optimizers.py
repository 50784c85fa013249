"""Every registered optimizer can be made from a point of its search space, and trains."""

import numpy as np
import pytest
import torch
from torch import nn

from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.optimizers import make_optimizer


@pytest.mark.parametrize("key", OPTIMIZERS)
def test_every_optimizer_steps_with_drawn_hyperparameters(key: str) -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    drawn = {name: distribution.draw(generator) for name, distribution in OPTIMIZERS[key].space.items()}
    drawn.pop("batch_size", None)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = make_optimizer(OPTIMIZERS[key], model, "half_mse", drawn)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    info = optimizer.step(torch.randn(20, 4), torch.randn(20, 2))
    assert {"loss", "lr"} <= set(info._fields)
    assert not torch.equal(before, nn.utils.parameters_to_vector(model.parameters()))


def test_the_search_space_is_the_papers() -> None:
    described = {key: {n: d.describe() for n, d in spec.space.items()} for key, spec in OPTIMIZERS.items()}
    batches = "50, 100, 200, 400, 800, 1600, 3200"
    assert described["adamqlr"] == {
        "batch_size": batches,
        "damping": "log-uniform 1e-08 … 1",
        "damping_decrease": "log-uniform 0.5 … 1",
        "damping_increase": "log-uniform 1 … 4",
    }
    assert described["adam"] == {"batch_size": batches, "lr": "log-uniform 1e-06 … 1"}
    assert described["adamqlr_untuned"] == described["adam_untuned"] == {}
    assert OPTIMIZERS["adamqlr_untuned"].batch_size == 3200
