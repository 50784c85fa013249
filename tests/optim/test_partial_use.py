"""Minibatches that use a part of the model, parameters of which a part is trained, and what is seldom in a loop."""

import copy
import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim.adam import Adam
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.sgd import SGD
from adamqlr.optim.state import State


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(12, 3), torch.randint(3, (12,))


def perceptron() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))


def branches() -> nn.ModuleList:
    torch.manual_seed(1)
    return nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])


def by_branch(model: nn.ModuleList, inputs: tuple[int, Tensor]) -> Tensor:
    outputs: Tensor = model[inputs[0]](inputs[1])
    return outputs


def test_state_that_a_refused_step_made_is_taken_back() -> None:
    inputs, targets = data()
    model = branches()
    inner = torch.optim.Adam(model.parameters())
    optimizer = QLR(model, "cross_entropy", inner, on_nonfinite="skip", forward=by_branch)
    assert optimizer.step((0, inputs), targets).taken
    known = copy.deepcopy({index: list(inner.state[p].items()) for index, p in enumerate(model[0].parameters())})
    assert not optimizer.step((1, inputs * torch.nan), targets).taken
    assert set(inner.state) == set(model[0].parameters())
    for index, parameter in enumerate(model[0].parameters()):
        torch.testing.assert_close(inner.state[parameter], dict(known[index]), rtol=0, atol=0)
    assert optimizer.step((1, inputs), targets).taken


class Replacing(torch.optim.Optimizer):
    """Puts a new mean of the gradients where the old one was, or another into a list."""

    def __init__(self, parameters: Any, in_list: bool) -> None:
        super().__init__(parameters, {})
        self._in_list = in_list

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                state = self.state[parameter]
                mean = state.get("mean", torch.zeros_like(parameter))
                state["mean"] = 0.9 * (mean[0] if self._in_list else mean) + parameter.grad
                parameter.sub_(state["mean"])
                if self._in_list:
                    state["mean"] = [state["mean"]]


def test_state_that_a_refused_step_replaced_is_taken_back() -> None:
    inputs, targets = data()
    model = branches()
    inner = Replacing(model.parameters(), in_list=False)
    optimizer = QLR(model, "cross_entropy", inner, on_nonfinite="skip", forward=by_branch)
    assert optimizer.step((0, inputs), targets).taken
    weight = next(model.parameters())
    mean = inner.state[weight]["mean"].clone()
    assert not optimizer.step((0, inputs * torch.nan), targets).taken
    torch.testing.assert_close(inner.state[weight]["mean"], mean, rtol=0, atol=0)


def test_state_in_lists_cannot_be_taken_back() -> None:
    inputs, targets = data()
    model = branches()
    inner = Replacing(model.parameters(), in_list=True)
    optimizer = QLR(model, "cross_entropy", inner, on_nonfinite="skip", forward=by_branch)
    with pytest.raises(ValueError, match="cannot take back 'mean' of Replacing, which is no tensor"):
        optimizer.step((0, inputs), targets)


def test_layers_that_a_hook_cut_off_for_a_while_train_again() -> None:
    inputs, targets = data()
    found = []
    for tail in ([], [nn.Identity()]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3), *tail)
        optimizer = AdamQLR(model, "cross_entropy")
        handle = model[1].register_forward_hook(lambda module, given, output: output.detach())
        optimizer.step(inputs, targets)
        handle.remove()
        for _ in range(3):
            optimizer.step(inputs, targets)
        found.append(model[0].weight)
    assert found[0].grad is not None
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("when", ["before", "after a step", "no parameters"])
def test_groups_of_which_nothing_is_trained_have_no_part_in_the_step(when: str) -> None:
    inputs, targets = data()
    found = []
    for alone in (True, False):
        model = perceptron()
        frozen = [] if when == "no parameters" else list(model[0].parameters())
        groups = [{"params": list(model[2].parameters()), "lr": 0.1}]
        if not alone:
            groups.insert(0, {"params": frozen, "lr": 1.0})
        if when != "after a step":
            model[0].requires_grad_(False)
        elif alone:
            groups.insert(0, {"params": frozen, "lr": 0.1})
        optimizer = AdamQLR(model, "cross_entropy", params=groups)
        if when == "after a step":
            optimizer.param_groups[0]["lr"] = 0.1
            optimizer.step(inputs, targets)
            model[0].requires_grad_(False)
            optimizer.param_groups[0]["lr"] = 0.1 if alone else 1.0
        optimizer.step(inputs, targets)
        found.append(list(model.parameters())[2].detach())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[Any]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()
    # In a process that was forked with it, as those that read images are, it would wait for ever to be torn down.
    gc.collect()


@pytest.mark.parametrize("momentum", [0.0, None], ids=str)
def test_heads_that_no_process_uses_stay(momentum: float | None, process_group: Any) -> None:
    inputs, targets = data()
    found = []
    for group in ("local", process_group):
        model = branches()
        optimizer = AdamQLR(
            model, "cross_entropy", momentum=momentum, weight_decay=1e-2, forward=by_branch, process_group=group
        )
        for step in range(5):
            optimizer.step((step % 2, inputs), targets)
        found.append(nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(found[0], found[1])


def test_the_baselines_compute_with_the_parameters_as_they_are_under_autocast() -> None:
    inputs, targets = data()
    losses = []
    for together in (True, False):
        model = perceptron()
        optimizer = Adam(model, "cross_entropy", lr=0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=together):
            found = []
            for _ in range(3):
                with torch.autocast("cpu", torch.bfloat16):
                    found.append(float(optimizer.step(inputs, targets).loss))
        losses.append(found)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


class Named(torch.nn.Module):
    """Has parts whose names mean something else in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.sparse, self.scale_grad_by_freq = nn.Linear(3, 3), nn.Linear(3, 3), True

    def forward(self, inputs: Tensor) -> Tensor:
        parts: Any = self
        outputs: Tensor = parts.dense(inputs) + parts.sparse(inputs)
        return outputs


def test_modules_may_have_parts_of_any_name() -> None:
    assert AdamQLR(Named(), "cross_entropy").step(*data()).taken
    with pytest.raises(ValueError, match="the model has sparse gradients"):
        AdamQLR(nn.Embedding(3, 3, sparse=True), "cross_entropy")


class Recurrent(nn.Module):
    """Classifies sequences by a recurrent layer's last state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.RNN(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, sequences: Any) -> Tensor:
        outputs: Tensor = self.head(self.layer(sequences)[1][0])
        return outputs


def test_packed_sequences_are_one_input() -> None:
    torch.manual_seed(0)
    packed = pack_padded_sequence(torch.randn(3, 5, 3), torch.tensor([5, 4, 2]), batch_first=True)
    assert AdamQLR(Recurrent(), "cross_entropy").step(packed, torch.tensor([0, 1, 2])).taken


class Own:
    """The gradient, with an option and a vector of some names."""

    def __init__(self, option: str = "beta", vector: str = "mean") -> None:
        self.defaults: Mapping[str, Any] = {option: 0.9}
        self._vector = vector

    def bind(self, flat: FlatParameters, state: State) -> None:
        state.vector(self._vector)

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        out.copy_(gradient.buffer)


@pytest.mark.parametrize("option", ["momentum", "weight_decay", "lr"])
def test_options_of_a_direction_have_names_of_their_own(option: str) -> None:
    model = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=f"the direction's option '{option}' is one of QLR's own"):
        QLR(model, "cross_entropy", Own(option))
    with pytest.raises(ValueError, match="two tensors of weight are called 'update'"):
        QLR(model, "cross_entropy", Own(vector="update"), momentum=None)
    assert QLR(model, "cross_entropy", Own(), momentum=None).step(*data()).taken


def test_a_first_piece_that_raises_leaves_kfacs_averages_as_they_are() -> None:
    inputs, targets = data()
    found = []
    for fails in (True, False):
        model = perceptron()
        optimizer = KFAC(model, "cross_entropy", microbatch=4, fisher="exact")
        if fails:
            with pytest.raises((IndexError, RuntimeError)):
                optimizer.step(inputs, torch.where(torch.arange(12) == 0, 7, targets))
        optimizer.step(inputs, targets)
        found.append(nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


def test_a_decorated_loss_may_be_no_function() -> None:
    loss = passed_on(functools.partial(functional.cross_entropy, label_smoothing=0.1))
    assert AdamQLR(nn.Linear(3, 3), loss).step(*data()).taken


class Chosen(nn.Module):
    """Two heads, of which one is used."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))
        self.which = 0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.heads[self.which](inputs)
        return outputs


@pytest.mark.parametrize(
    ("make", "like", "options"),
    [
        (Adam, torch.optim.Adam, {"lr": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ],
)
def test_the_baselines_leave_what_a_minibatch_does_not_use_as_pytorchs_do(make: Any, like: Any, options: Any) -> None:
    torch.manual_seed(0)
    model, inputs, targets = Chosen(), torch.randn(8, 4), torch.arange(8) % 3
    other = copy.deepcopy(model)
    optimizer, theirs = make(model, "cross_entropy", **options), like(other.parameters(), **options)
    for which in (0, 1, 1):
        model.which = other.which = which
        optimizer.step(inputs, targets)
        theirs.zero_grad()
        nn.functional.cross_entropy(other(inputs), targets).backward()
        theirs.step()
        if make is SGD or which == 0:
            # Adam's steps are counted for all parameters in common.
            torch.testing.assert_close(list(model.parameters()), list(other.parameters()))
        torch.testing.assert_close(list(model.heads[0].parameters()), list(other.heads[0].parameters()))


@pytest.mark.parametrize("pause", [100, 3000])
def test_moments_of_a_head_that_was_not_used_for_a_while_are_not_forgotten(pause: int, process_group: Any) -> None:
    """Its gradients are all alike, so that Adam's direction is their sign, however long it was away."""
    moves = []
    for group in ("local", process_group):
        model = branches()
        optimizer = AdamQLR(
            model,
            lambda outputs, targets: outputs.sum(dim=1).mean() + 1e-9 * outputs.square().mean(),
            forward=by_branch,
            lr=1.0,
            lr_clipping=1e-4,
            damping=0.0,
            adapt_damping=False,
            process_group=group,
        )
        for branch in [0] * 5 + [1] * pause:
            optimizer.step((branch, torch.ones(2, 3)), torch.zeros(2))
        before = nn.utils.parameters_to_vector(model[0].parameters()).detach()
        info = optimizer.step((0, torch.ones(2, 3)), torch.zeros(2))
        moves.append((before - nn.utils.parameters_to_vector(model[0].parameters()).detach()) / info.lr)
    torch.testing.assert_close(moves[0], torch.ones(12), rtol=1e-3, atol=0)
    torch.testing.assert_close(moves[1], moves[0], rtol=1e-3, atol=0)
