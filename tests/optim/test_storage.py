"""Parameters whose storage somebody replaces, shares or cuts, and state that somebody empties."""

import copy
import pickle
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


class Overlapping(nn.Module):
    """Two layers, and a way in which they share memory."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
        whole = torch.randn(8, 4) / 2
        if way == "buffer":
            self.register_buffer("shown", self.first.weight.data)
        elif way == "frozen":
            self.shown = nn.Parameter(self.first.weight.data, requires_grad=False)
        elif way == "in part":
            self.first.weight.data, self.shown = whole[:4], nn.Parameter(whole[3:7])
        elif way == "side by side":
            self.first.weight.data, self.shown = whole[:4], nn.Parameter(whole[4:])
        else:
            self.first.weight.data, self.shown = whole.view(4, 8)[:, :4], nn.Parameter(whole.view(4, 8)[:, 4:])

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.second(torch.tanh(self.first(inputs) @ self.shown.T))
        return outputs


@pytest.mark.parametrize("way", ["buffer", "frozen", "in part"])
def test_memory_that_a_step_would_part_is_refused(way: str) -> None:
    with pytest.raises(ValueError, match=r"^(first\.weight and shown|shown and first\.weight) share their memory"):
        AdamQLR(Overlapping(way), "cross_entropy")


@pytest.mark.parametrize("way", ["side by side", "columns"])
def test_parts_of_one_tensor_may_be_parameters(way: str) -> None:
    _, inputs, targets = task()
    found = []
    for apart in (False, True):
        torch.manual_seed(0)
        model = Overlapping(way)
        if apart:
            model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
        optimizer = AdamQLR(model, "cross_entropy")
        for _ in range(3):
            optimizer.step(inputs, targets)
        found.append(list(map(Tensor.detach, model.parameters())))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"])
def test_what_was_put_in_the_place_of_parameters_is_copied(way: Callable[[Any], Any]) -> None:
    model, inputs, targets = task()
    optimizer = AdamQLR(model, "cross_entropy")
    optimizer.step(inputs, targets)
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    other, another = way((model, optimizer))
    optimizer.step(inputs, targets)
    another.step(inputs, targets)
    torch.testing.assert_close(list(other.parameters()), list(model.parameters()))


def test_a_group_can_be_added_where_parameters_were_replaced() -> None:
    model, inputs, targets = task()
    optimizer = AdamQLR(model, "cross_entropy", params=model[2].parameters())
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    optimizer.add_param_group({"params": list(model[0].parameters())})
    before = [parameter.detach().clone() for parameter in model[0].parameters()]
    optimizer.step(inputs, targets)
    assert not any(map(torch.equal, before, model[0].parameters()))
