"""States that version 0.1 saved are taken up, and go on to the numbers that it went on to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.problems.models import mlp
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.optimizers import make_optimizer

STATES: dict[str, dict[str, Any]] = torch.load(
    Path(__file__).parents[1] / "fixtures" / "states_of_version_0.1.pt", weights_only=True
)
NETWORKS = {
    "mlp": lambda: mlp([5, 6, 3]),
    "conv": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),
    "pack": lambda: PerceptronPack([mlp([5, 6, 3]) for _ in range(2)]),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_version_0_1_goes_on(name: str) -> None:
    saved = STATES[name]
    model = NETWORKS[saved["network"]]().double()
    optimizer = make_optimizer(OPTIMIZERS[saved["optimizer"]], model, "cross_entropy", saved["options"])
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["state"])
    for batch in saved["batches"]:
        optimizer.step(*batch)
    torch.testing.assert_close([p.detach() for p in model.parameters()], saved["parameters"], rtol=1e-9, atol=1e-11)


def test_parameters_that_took_different_numbers_of_steps_are_refused() -> None:
    """As PyTorch's optimizers count them, of which one may have been frozen for a while."""
    optimizer = make_optimizer(OPTIMIZERS["adam_untuned"], mlp([5, 6, 3]), "cross_entropy", {"lr": 0.1})
    state = optimizer.state_dict()
    for index, steps in enumerate((4.0, 4.0, 3.0, 4.0)):
        state["state"][index]["step"] = torch.tensor(steps)
    with pytest.raises(
        ValueError, match=r"^the saved parameters have taken different numbers of steps: \[3\.0, 4\.0\]$"
    ):
        optimizer.load_state_dict(state)
