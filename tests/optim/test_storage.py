"""Parameters whose storage somebody replaces, shares or cuts, and state that somebody empties."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr import AdamQLR
from adamqlr.optim.adam import Adam


def task() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    return model, torch.randn(30, 4), torch.randint(3, (30,))


class Constrained(nn.Linear):
    """A layer whose rows are never longer than one, by new storage or in place."""

    in_place = False

    def forward(self, input: Tensor) -> Tensor:
        short = torch.renorm(self.weight.detach(), p=2, dim=0, maxnorm=1.0)
        if self.in_place:
            self.weight.data.copy_(short)
        else:
            self.weight.data = short
        return super().forward(input)


STEPPED: dict[str, Callable[[nn.Module], Any]] = {
    "AdamQLR": lambda model: AdamQLR(model, "cross_entropy"),
    "microbatch": lambda model: AdamQLR(model, "cross_entropy", microbatch=10),
    "Adam": lambda model: Adam(model, "cross_entropy", lr=0.1),
}


@pytest.mark.parametrize("name", STEPPED)
def test_storage_that_the_forward_pass_replaces_is_what_the_step_moves(name: str) -> None:
    found = []
    for in_place in (False, True):
        _, inputs, targets = task()
        layers = [Constrained(4, 8), Constrained(8, 3)]
        for layer in layers:
            layer.in_place = in_place
        model = nn.Sequential(layers[0], nn.Tanh(), layers[1])
        optimizer = STEPPED[name](model)
        for _ in range(5):
            optimizer.step(inputs, targets)
        found.append([parameter.detach().clone() for parameter in model.parameters()])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_storage_that_changes_its_layout_at_the_same_address_is_noticed(activation: type[nn.Module]) -> None:
    model, inputs, targets = task()
    model[1] = activation()
    optimizer = AdamQLR(model, "cross_entropy")
    optimizer.step(inputs, targets)
    weight = model.get_parameter("0.weight")
    weight.data = weight.data.t()
    wanted = functional.cross_entropy(model(inputs), targets)
    torch.testing.assert_close(optimizer.step(inputs, targets).loss, wanted.detach())
    weight.data = weight.data[:2]
    with pytest.raises(ValueError, match=r"0\.weight is no longer what it was: make the optimizer anew"):
        optimizer.step(inputs, targets)


def test_parameters_tied_by_their_data_are_refused() -> None:
    model, _, _ = task()
    model[2] = nn.Linear(4, 4)
    model[2].weight.data = model[0].weight.data
    with pytest.raises(ValueError, match=r"0\.weight and 2\.weight share their memory.*assigning the parameter"):
        AdamQLR(model, "cross_entropy")


def test_state_that_was_emptied_is_refused() -> None:
    model, inputs, targets = task()
    optimizer = AdamQLR(model, "cross_entropy")
    optimizer.step(inputs, targets)
    optimizer.state = defaultdict(dict)
    with pytest.raises(ValueError, match="state was emptied, which resets nothing: make the optimizer anew"):
        optimizer.step(inputs, targets)
