"""Twelve everyday operations on AdamQLR, QLR over an optimizer of PyTorch's, and K-FAC, an entry of the table each.

Each does the right thing, against a run that does without the operation or a computation of the test's own, or is
refused with an error that says what to do.
"""

import contextlib
import copy
import io
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim.adam import Adam
from adamqlr.optim.baydin import BaydinSGD
from adamqlr.optim.info import QLRInfo
from adamqlr.optim.sgd import SGD

Batch = tuple[Tensor, Tensor]
Make = Callable[..., QLR]


def qlr_over_nadam(model: nn.Module, loss: Any, params: Any = None, **options: Any) -> QLR:
    moved = model.parameters() if params is None else [p for group in params for p in group["params"]]
    return QLR(model, loss, torch.optim.NAdam(moved), params=params, **options)


MAKERS: dict[str, Make] = {"AdamQLR": AdamQLR, "QLR over NAdam": qlr_over_nadam, "KFAC": KFAC}


STATEFUL: dict[str, Callable[[nn.Module], Any]] = {
    **{name: partial(maker, loss="cross_entropy", momentum=None) for name, maker in MAKERS.items()},
    "SGD": lambda model: SGD(model, "cross_entropy", lr=0.1, momentum=0.9),
    "Adam": lambda model: Adam(model, "cross_entropy", lr=0.1),
    "BaydinSGD": lambda model: BaydinSGD(model, "cross_entropy", lr=0.1, hypergradient_lr=0.01),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (5, 1, 1)),
        nn.ZeroPad2d(1),
        nn.Conv2d(5, 4, 2),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


NETWORKS = {"perceptron": perceptron, "convolutional": convolutional}


@pytest.fixture(params=NETWORKS)
def build(request: pytest.FixtureRequest) -> Callable[[], nn.Sequential]:
    return NETWORKS[request.param]


def batches(number: int, dtype: torch.dtype = torch.float32) -> list[Batch]:
    return [(torch.randn(24, 5, dtype=dtype), torch.randint(3, (24,))) for _ in range(number)]


def train(optimizer: QLR, some: list[Batch], seed: int = 1) -> Tensor:
    """Take a step on each minibatch, K-FAC's samples being those of ``seed``; return what each step found."""
    torch.manual_seed(seed)
    return torch.tensor([tuple(map(float, optimizer.step(*batch))) for batch in some])


def train_any(optimizer: Any, some: list[Batch]) -> None:
    """Take a step on each minibatch, with seeds of their own."""
    for seed, batch in enumerate(some):
        torch.manual_seed(seed)
        optimizer.step(*batch)


LOSS, RATE, RHO = (QLRInfo._fields.index(name) for name in ("loss", "lr", "rho"))


def values(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def assert_same(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(values(first), values(second), rtol=0, atol=0)


def assert_moved(model: nn.Module, before: list[Tensor]) -> None:
    """Every parameter has moved, but for a bias that batch normalization undoes."""
    for (name, tensor), old in zip(model.state_dict().items(), before, strict=True):
        assert not torch.equal(tensor, old) or name == "2.bias", name


# 1 and 2: copies.


def by_pickle(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


def by_file(pair: Any) -> Any:
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle, by_file])
def test_copies_of_model_and_optimizer_train_on_as_the_originals_do(
    make: Make, build: Callable[[], nn.Sequential], duplicate: Callable[[Any], Any]
) -> None:
    model, some = build(), batches(6)
    optimizer = make(model, "cross_entropy", momentum=None)
    train(optimizer, some[:3])
    before = values(model)
    other, another = duplicate((model, optimizer))
    assert another.model is other
    found = train(another, some[3:])
    # The original knows nothing of its copy.
    torch.testing.assert_close(values(model), before, rtol=0, atol=0)
    torch.testing.assert_close(train(optimizer, some[3:]), found, rtol=0, atol=0)
    assert_same(model, other)


def test_a_copy_of_the_optimizer_alone_has_a_model_of_its_own(make: Make, build: Callable[[], nn.Sequential]) -> None:
    model, some = build(), batches(6)
    optimizer = make(model, "cross_entropy")
    train(optimizer, some[:3])
    before = values(model)
    another = copy.deepcopy(optimizer)
    train(another, some[3:])
    torch.testing.assert_close(values(model), before, rtol=0, atol=0)
    train(optimizer, some[3:])
    assert_same(model, another.model)


def test_a_pickled_optimizer_holds_no_more_than_its_model_and_state(make: Make) -> None:
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 3))
    optimizer = make(model, "cross_entropy")
    train(optimizer, [(torch.randn(8, 100), torch.randint(3, (8,)))])
    files = io.BytesIO(), io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), files[0])
    torch.save((model, optimizer), files[1])
    assert len(files[1].getvalue()) < len(files[0].getvalue()) + 10_000


# 3: one's own state.


def test_ones_own_state_can_be_loaded_at_any_time(make: Make, build: Callable[[], nn.Sequential]) -> None:
    model, some = build(), batches(6)
    optimizer = make(model, "cross_entropy", momentum=None)
    other, another = copy.deepcopy((model, optimizer))
    for step, batch in enumerate(some):
        optimizer.load_state_dict(optimizer.state_dict())
        if step == 3:
            saved = copy.deepcopy(optimizer.state_dict()), values(model)
        train(optimizer, [batch], seed=step)
        train(another, [batch], seed=step)
        assert_same(model, other)
    # Back to an earlier one.
    optimizer.load_state_dict(saved[0])
    for tensor, value in zip(model.state_dict().values(), saved[1], strict=True):
        tensor.copy_(value)
    for step, batch in enumerate(some[3:], start=3):
        train(optimizer, [batch], seed=step)
    assert_same(model, other)


@pytest.mark.parametrize("change", [lambda model: None, lambda model: model.double()], ids=["same", "double"])
def test_state_is_loaded_into_parameters_that_have_replaced_others(
    make: Make, build: Callable[[], nn.Sequential], change: Callable[[nn.Module], Any]
) -> None:
    model, some = build(), batches(6)
    optimizer = make(model, "cross_entropy")
    train(optimizer, some[:3])
    other = build()
    another = make(other, "cross_entropy")
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    for one in (model, other):
        change(one)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    dtype = model.get_parameter("2.weight").dtype
    rest = [(inputs.to(dtype), targets) for inputs, targets in some[3:]]
    train(optimizer, rest)
    train(another, rest)
    assert_same(model, other)


def plain(state: Any) -> Any:
    """Return a state as what can be compared."""
    if isinstance(state, Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, (list, tuple)) else state


def of_fewer_layers(state: dict[str, Any]) -> None:
    """A name is missing, where all before it have been taken up."""
    last = list(state["state"].values())[-1]
    del last[next(iter(last))]


def of_other_shapes(state: dict[str, Any]) -> None:
    last = list(state["state"].values())[-1]
    last.update({name: torch.zeros(7) for name in last})


def of_more_groups(state: dict[str, Any]) -> None:
    state["param_groups"].append({**state["param_groups"][0], "params": []})


@pytest.mark.parametrize("spoil", [of_fewer_layers, of_other_shapes, of_more_groups])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_that_is_refused_changes_nothing(name: str, spoil: Callable[[dict[str, Any]], None]) -> None:
    model, some = perceptron(), batches(6)
    optimizer = STATEFUL[name](model)
    train_any(optimizer, some[:2])
    refused = copy.deepcopy(optimizer.state_dict())
    spoil(refused)
    train_any(optimizer, some[2:4])
    other, another = copy.deepcopy((model, optimizer))
    with pytest.raises(ValueError, match=r"saved|loaded state dict"):
        optimizer.load_state_dict(refused)
    assert plain(optimizer.state_dict()) == plain(another.state_dict())
    train_any(optimizer, some[4:])
    train_any(another, some[4:])
    assert_same(model, other)


def test_a_state_that_is_refused_does_not_count_as_a_step(make: Make) -> None:
    model, some = perceptron(), batches(1)
    optimizer = make(model, "cross_entropy", momentum=None)
    train(optimizer, some)
    refused = copy.deepcopy(optimizer.state_dict())
    of_other_shapes(refused)
    optimizer = make(model, "cross_entropy", momentum=None)
    with pytest.raises(ValueError, match="saved"):
        optimizer.load_state_dict(refused)
    optimizer.add_param_group({"params": []})


def test_a_state_from_before_all_steps_is_no_step(make: Make) -> None:
    model, some = perceptron(), batches(2)
    model[0].requires_grad_(False)
    optimizer = make(model, "cross_entropy", params=[{"params": list(model.parameters())}])
    optimizer.load_state_dict(optimizer.state_dict())
    model[0].requires_grad_(True)
    before = values(model)
    train(optimizer, some[:1])
    assert_moved(model, before)
    model[0].requires_grad_(False)
    # States that do not say whether steps have been taken, as earlier ones, count as if there were some.
    started = optimizer.state_dict()
    for state in (started, {name: value for name, value in started.items() if name != "has_started"}):
        another = make(model, "cross_entropy", params=[{"params": list(model.parameters())}])
        another.load_state_dict(copy.deepcopy(state))
        with pytest.raises(ValueError, match="parameters cannot join after the first step"):
            another.add_param_group({"params": []})


# 4: schedulers of the learning rate.

SCHEDULERS: dict[str, tuple[Callable[[Any], Any], Callable[[int], float]]] = {
    "warm-up": (
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4)),
        lambda step: min(1.0, (step + 1) / 4),
    ),
    "cosine": (
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
        lambda step: 0.5 * (1 + math.cos(math.pi * step / 6)),
    ),
    "one cycle": (
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=7, pct_start=0.5, anneal_strategy="linear", cycle_momentum=False
        ),
        lambda step: 0.04 + 0.96 * step / 2.5 if step <= 2.5 else 1.0 - (1 - 0.04e-4) * (step - 2.5) / 3.5,
    ),
    "plateau": (
        # A loss that never gets better: from the third time on the rate is halved every time.
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0),
        lambda step: 0.5 ** max(0, step - 1),
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_multiply_the_learning_rate_that_the_model_chooses(make: Make, name: str) -> None:
    model = perceptron()
    optimizer = make(model, "cross_entropy")
    build_scheduler, factor = SCHEDULERS[name]
    scheduler = build_scheduler(optimizer)
    for step, batch in enumerate(batches(6)):
        # What the step would have been without a scheduler.
        other, another = copy.deepcopy((model, optimizer))
        another.param_groups[0]["lr"] = 1.0
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        free, scheduled = train(another, [batch]), train(optimizer, [batch])
        scheduler.step(1.0) if name == "plateau" else scheduler.step()
        assert float(scheduled[0, RATE]) == pytest.approx(factor(step) * float(free[0, RATE]), rel=1e-5)
        if optimizer.param_groups[0]["momentum"] == 0:
            moves = [nn.utils.parameters_to_vector(m.parameters()).detach() - before for m in (model, other)]
            torch.testing.assert_close(moves[0], factor(step) * moves[1], rtol=1e-3, atol=1e-6)


def test_schedulers_resume_with_their_optimizer(make: Make) -> None:
    some, runs = batches(6), []
    for interrupted in (False, True):
        torch.manual_seed(2)
        model = perceptron()
        optimizer = make(model, "cross_entropy")
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
        for step, batch in enumerate(some):
            if interrupted and step == 3:
                model, optimizer, scheduler = pickle.loads(pickle.dumps((model, optimizer, scheduler)))
                assert scheduler.optimizer is optimizer
            train(optimizer, [batch], seed=step)
            scheduler.step()
        runs.append(model)
    assert_same(*runs)


# 5: add_param_group.


def test_parameters_join_before_the_first_step(make: Make, build: Callable[[], nn.Sequential]) -> None:
    model, some = build(), batches(4)
    other = copy.deepcopy(model)
    last = list(model[-1].parameters())
    rest = [parameter for parameter in model.parameters() if all(parameter is not p for p in last)]
    another = make(other, "cross_entropy")
    if make is qlr_over_nadam:
        inner = torch.optim.NAdam(rest)
        optimizer = QLR(model, "cross_entropy", inner, params=rest)
        message = (
            f"NAdam does not move {len(model) - 1}.weight: give it all trained parameters, or QLR only its own with "
            "params=…"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            optimizer.add_param_group({"params": last, "weight_decay": 0.0})
        inner.add_param_group({"params": last})
    else:
        optimizer = make(model, "cross_entropy", params=rest)
    optimizer.add_param_group({"params": last, "weight_decay": 0.0})
    train(optimizer, some)
    train(another, some)
    torch.testing.assert_close(values(model), values(other), rtol=1e-4, atol=1e-5)


def test_parameters_cannot_join_after_the_first_step(make: Make) -> None:
    model = perceptron()
    optimizer = make(model, "cross_entropy", params=[{"params": list(model[2].parameters())}])
    train(optimizer, batches(1))
    before = values(model)
    message = "parameters cannot join after the first step: make the optimizer anew with params=…"
    with pytest.raises(ValueError, match=f"^{message}$"):
        optimizer.add_param_group({"params": list(model[0].parameters())})
    assert len(optimizer.param_groups) == 1
    train(optimizer, batches(1))
    torch.testing.assert_close(values(model)[:2], before[:2], rtol=0, atol=0)
    assert not torch.equal(values(model)[2], before[2])


# 6: weight decay by group.


def test_groups_have_their_own_weight_decay(make: Make, build: Callable[[], nn.Sequential]) -> None:
    """The step is that without weight decay, less each group's share of θ from before."""
    model, (batch,) = build(), batches(1)
    other = copy.deepcopy(model)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    info = train(make(model, "cross_entropy", params=groups), [batch])
    wanted = train(make(other, "cross_entropy"), [batch])
    # ρ is measured before the decay.
    torch.testing.assert_close(info, wanted, rtol=1e-4, atol=1e-8)
    for parameter, plain, start in zip(model.parameters(), other.parameters(), before, strict=True):
        decay = 0.1 if parameter.dim() > 1 else 0.0
        torch.testing.assert_close(parameter.detach(), plain.detach() - decay * start, rtol=1e-5, atol=1e-6)


# 7: parameters given new storage, replaced, frozen.


def rebind_data(model: nn.Sequential) -> None:
    weight = model[-1].get_parameter("weight")
    weight.data = weight.data.clone()


def rebind_all_data(model: nn.Sequential) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def rebind_by_assignment(model: nn.Sequential) -> None:
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)


def replace_layer(model: nn.Sequential) -> None:
    model[-1] = copy.deepcopy(model[-1])


def replace_parameter(model: nn.Sequential) -> None:
    model[-1].bias = nn.Parameter(model[-1].get_parameter("bias").detach().clone())


@pytest.mark.parametrize(
    "rebind", [rebind_data, rebind_all_data, rebind_by_assignment, replace_layer, replace_parameter]
)
def test_parameters_in_new_storage_are_trained_on_as_if_nothing_had_happened(
    make: Make, build: Callable[[], nn.Sequential], rebind: Callable[[nn.Sequential], None]
) -> None:
    model, some = build(), batches(6)
    other = copy.deepcopy(model)
    optimizer, another = make(model, "cross_entropy"), make(other, "cross_entropy")
    train(optimizer, some[:3])
    train(another, some[:3])
    rebind(model)
    before = values(model)
    train(optimizer, some[3:])
    train(another, some[3:])
    assert_same(model, other)
    assert_moved(model, before)


def test_memory_that_becomes_shared_stays_so(make: Make, build: Callable[[], nn.Sequential]) -> None:
    """Other processes, which evaluate say, see the parameters move."""
    model, some = build(), batches(4)
    other = copy.deepcopy(model)
    optimizer, another = make(model, "cross_entropy"), make(other, "cross_entropy")
    train(optimizer, some[:2])
    train(another, some[:2])
    model.share_memory()
    elsewhere = [torch.from_numpy(parameter.detach().numpy()) for parameter in model.parameters()]
    train(optimizer, some[2:])
    train(another, some[2:])
    assert all(parameter.is_shared() for parameter in model.parameters())
    assert_same(model, other)
    torch.testing.assert_close(elsewhere, [parameter.detach() for parameter in model.parameters()], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"in memory shared with other processes, .* after the optimizer is made"):
        make(model, "cross_entropy")
    make(copy.deepcopy(model), "cross_entropy")


def test_what_is_frozen_and_freed_stays_and_moves_on(make: Make, build: Callable[[], nn.Sequential]) -> None:
    model, some = build(), batches(7)
    optimizer = make(model, "cross_entropy")
    train(optimizer, some[:2])
    layer = model[-1]
    layer.requires_grad_(False)
    kept, before = values(layer), values(model)
    # As if the optimizer had been made for the rest, from the moments that it has.
    train(optimizer, some[2:5])
    torch.testing.assert_close(values(layer), kept, rtol=0, atol=0)
    assert layer.weight.grad is None
    assert not torch.equal(values(model)[0], before[0])
    layer.requires_grad_(True)
    info = train(optimizer, some[5:])
    assert not torch.equal(values(layer)[0], kept[0])
    assert not torch.equal(values(layer)[1], kept[1])
    assert info[:, LOSS].isfinite().all()


def test_freezing_is_as_having_made_the_optimizer_for_the_rest(make: Make, build: Callable[[], nn.Sequential]) -> None:
    model, some = build(), batches(4)
    other = copy.deepcopy(model)
    optimizer = make(model, "cross_entropy")
    model[-1].requires_grad_(False)
    other[-1].requires_grad_(False)
    another = make(other, "cross_entropy")
    torch.testing.assert_close(train(optimizer, some), train(another, some), rtol=0, atol=0)
    assert_same(model, other)


def test_what_was_frozen_from_the_start_cannot_join_later(make: Make) -> None:
    model = perceptron()
    model[2].requires_grad_(False)
    optimizer = make(model, "cross_entropy")
    train(optimizer, batches(1))
    model[2].requires_grad_(True)
    message = "2.weight has become trainable: make the optimizer anew, or give it its params=…"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train(optimizer, batches(1))


def test_a_model_that_has_become_another_is_refused(make: Make) -> None:
    def message(change: Callable[[nn.Sequential], Any], inputs: Tensor) -> str:
        model = perceptron()
        optimizer = make(model, "cross_entropy")
        train(optimizer, batches(1))
        change(model)
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
            optimizer.step(inputs, torch.randint(3, (24,)))
        return str(caught.value)

    def widen(model: nn.Sequential) -> None:
        model[0] = nn.Linear(5, 9)

    def tie(model: nn.Sequential) -> None:
        model[2].bias = model[0].bias

    gone = "is no longer what it was: make the optimizer anew for the changed model"
    assert message(widen, torch.randn(24, 5)) == f"0.weight {gone}"
    assert message(tie, torch.randn(24, 5)) == f"2.bias {gone}"
    assert message(lambda model: model.double(), torch.randn(24, 5).double()) == (
        "0.weight moved to torch.float64 on cpu: make the optimizer anew"
    )
    assert message(lambda model: model.append(nn.Linear(3, 3)), torch.randn(24, 5)) == (
        "3.weight has become trainable: make the optimizer anew, or give it its params=…"
    )


# 8: channels last.


def test_channels_last_is_kept_with_the_same_numbers(make: Make) -> None:
    def images() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

    model, some = images(), [(torch.randn(8, 3, 6, 6), torch.randint(3, (8,))) for _ in range(5)]
    model = model.double()
    some = [(inputs.double(), targets) for inputs, targets in some]
    other = copy.deepcopy(model)
    optimizer, another = make(model, "cross_entropy"), make(other, "cross_entropy")
    train(optimizer, some[:2])
    train(another, some[:2])
    # PyTorch's types leave this way of calling it out.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    some_last = [(inputs.to(memory_format=torch.channels_last), targets) for inputs, targets in some]
    found, wanted = train(optimizer, some_last[2:]), train(another, some[2:])
    weight = model.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    torch.testing.assert_close(values(model), values(other), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


# 9: accelerate.


def test_accelerate_prepares_model_and_optimizer(make: Make, build: Callable[[], nn.Sequential]) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model, some = build(), batches(4)
    other = copy.deepcopy(model)
    optimizer, another = make(model, "cross_entropy"), make(other, "cross_entropy")
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    torch.manual_seed(1)
    for batch in some:
        prepared_optimizer.optimizer.step(*batch)
    train(another, some)
    assert_same(accelerator.unwrap_model(prepared), other)


# 10: autocast.


def test_bfloat16_autocast_gives_the_rho_that_it_gives_without_its_cache(
    make: Make, build: Callable[[], nn.Sequential]
) -> None:
    model, some = build(), batches(6)
    other = copy.deepcopy(model)
    optimizer, another = make(model, "cross_entropy"), make(other, "cross_entropy")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = train(optimizer, some)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        wanted = train(another, some)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert_same(model, other)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for state in optimizer.state.values():
        assert all(value.dtype == torch.float32 for value in state.values())
    # A stale cache would have it at exactly 0.
    assert (found[:, RHO].abs() > 0.01).all()


def test_one_step_under_autocast_is_that_of_single_precision_to_bfloat16s_rounding(make: Make) -> None:
    model, (batch,) = perceptron(), batches(1)
    other = copy.deepcopy(model)
    # Far enough that the loss moves by much more than a unit of bfloat16's last place.
    optimizer, another = make(model, "cross_entropy", damping=1e-2), make(other, "cross_entropy", damping=1e-2)
    (exact,) = train(another, [batch]).tolist()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = train(optimizer, [batch]).tolist()
    # The loss, and the change that a quadratic model foresees.
    assert found[LOSS] == pytest.approx(exact[LOSS], rel=2**-7)
    if make is not KFAC:
        assert found[RATE] == pytest.approx(exact[RATE], rel=0.1)
        assert found[RHO] == pytest.approx(exact[RHO], rel=0.15)


class Products(torch.optim.SGD):
    """Multiplies matrices in its step, as optimizers with preconditioners do."""

    def step(self, closure: Any = None) -> Any:
        (gradient,) = (parameter.grad for group in self.param_groups for parameter in group["params"])
        self.found = (gradient @ gradient.T).dtype
        return super().step(closure)


@pytest.mark.parametrize("options", [{}, {"microbatch": 16}, {"momentum": None}, {"curvature": "hessian"}], ids=str)
@pytest.mark.parametrize("inner", [False, True], ids=["around the step", "within the model"])
def test_damping_stays_bounded_once_a_minibatch_is_fitted_as_far_as_bfloat16_goes(
    inner: bool, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 2))
    inputs, targets = torch.randn(64, 10), torch.randn(64, 2)

    def autocast() -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def forward(model: nn.Module, inputs: Tensor) -> Tensor:
        with autocast():
            outputs: Tensor = model(inputs)
        return outputs

    optimizer = AdamQLR(model, "half_mse", forward=forward if inner else None, **options)
    dampings = []
    for _ in range(160):
        with contextlib.nullcontext() if inner else autocast():
            info = optimizer.step(inputs, targets)
        dampings.append(float(info.damping))
    assert float(info.loss) < 1e-3
    assert max(dampings[40:]) < 1e-3


def test_what_pieces_do_not_resolve_is_what_the_whole_does_not() -> None:
    torch.manual_seed(0)
    model, inputs, targets = nn.Linear(10, 2), torch.randn(64, 10), torch.randn(64, 2)
    found = []
    for options in ({}, {"microbatch": 16}):
        network = AdamQLR(model, "half_mse", **options)._network
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(network.linearize(inputs, targets, "fisher").unresolved)
    assert found[0] is not None
    torch.testing.assert_close(found[1], found[0], rtol=0.02, atol=0)


def test_a_wrapped_optimizer_steps_outside_autocast() -> None:
    """As in an ordinary loop, where autocast is around the forward pass alone."""
    model = nn.Linear(4, 3, bias=False)
    wrapped = Products(model.parameters(), lr=0.1)
    optimizer = QLR(model, "cross_entropy", wrapped)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(torch.randn(20, 4), torch.randint(3, (20,)))
    assert wrapped.found == torch.float32


def test_fixed_rates_report_the_slope_in_single_precision_under_autocast() -> None:
    model = nn.Linear(4, 3)
    optimizer = QLR(model, "cross_entropy", "gradient", lr=0.1, damping=0.0, adapt_damping=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        info = optimizer.step(torch.randn(20, 4), torch.randint(3, (20,)))
    assert info.grad_dot_direction.dtype == torch.float32


def test_half_precision_is_refused(make: Make, build: Callable[[], nn.Sequential]) -> None:
    optimizer = make(build(), "cross_entropy")
    message = "float16 needs its loss scaled, which the step cannot do: use torch.autocast(…, dtype=torch.bfloat16)"
    with (
        torch.autocast("cpu", dtype=torch.float16),
        pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"),
    ):
        train(optimizer, batches(1))
    for dtype in (torch.float16, torch.bfloat16):
        name = "0.weight" if build is perceptron else "2.weight"
        message = (
            f"{name} is {dtype}: parameters must be float32 or float64; for mixed precision keep them so "
            "and step within torch.autocast(…, dtype=torch.bfloat16)"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make(build().to(dtype), "cross_entropy")


# 11: checkpointing.


class Checkpointed(nn.Module):
    def __init__(self, block: nn.Module, reentrant: bool | None) -> None:
        super().__init__()
        self.block, self.reentrant, self.head = block, reentrant, nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.head(self.block(inputs))
        return self.head(checkpoint(self.block, inputs, use_reentrant=self.reentrant))


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
def test_checkpointing_changes_no_number(make: Make, curvature: str) -> None:
    options = {} if make is KFAC else {"curvature": curvature}
    plain = Checkpointed(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 8)), None).double()
    saving = copy.deepcopy(plain)
    saving.reentrant = False
    some = batches(4, torch.float64)
    wanted = train(make(plain, "cross_entropy", **options), some)
    found = train(make(saving, "cross_entropy", **options), some)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(values(saving), values(plain), rtol=1e-9, atol=1e-12)


def test_reentrant_checkpointing_is_refused(make: Make) -> None:
    model = Checkpointed(nn.Linear(5, 8), True)
    before = values(model)
    optimizer = make(model, "cross_entropy")
    message = (
        "reentrant checkpointing has no second derivatives: use torch.utils.checkpoint.checkpoint(…, "
        "use_reentrant=False), in Transformers gradient_checkpointing_kwargs={'use_reentrant': False}"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        train(optimizer, batches(1))
    torch.testing.assert_close(values(model), before, rtol=0, atol=0)
    # Elsewhere it goes on as ever.
    model(torch.randn(4, 5, requires_grad=True)).sum().backward()


# 12: BCEWithLogitsLoss.


@pytest.mark.parametrize("momentum", [0.0, None])
def test_binary_cross_entropy_is_minimized_by_its_own_curvature(make: Make, momentum: float | None) -> None:
    """Loss, gradient, C + λ I and ρ against matrices: C = Jᵀ diag(σ (1 − σ)) J / elements."""
    loss = nn.BCEWithLogitsLoss()
    model = perceptron().double()
    optimizer = make(model, loss, momentum=momentum, damping=0.01)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    inputs, targets = torch.randn(24, 5).double(), torch.rand(24, 3).double()

    def outputs(flat: Tensor) -> Tensor:
        named, start = {}, 0
        for name, parameter in model.named_parameters():
            named[name] = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        return torch.func.functional_call(model, named, (inputs,))

    jacobian = torch.autograd.functional.jacobian(outputs, theta).reshape(72, -1)
    logits = outputs(theta).detach()
    # log σ and its derivatives, by hand.
    value = -(targets * logits.sigmoid().log() + (1 - targets) * (-logits).sigmoid().log()).mean()
    gradient = jacobian.T @ (logits.sigmoid() - targets).flatten() / 72
    curvature = jacobian.T @ torch.diag((logits.sigmoid() * (1 - logits.sigmoid())).flatten()) @ jacobian / 72
    info = optimizer.step(inputs, targets)
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - theta
    # The first step has no previous update: it is −α d.
    direction = -moved / info.lr
    damped = curvature + 0.01 * torch.eye(len(theta))
    assert float(info.loss) == pytest.approx(float(value), rel=1e-9)
    assert float(info.grad_dot_direction) == pytest.approx(float(gradient @ direction), rel=1e-9)
    assert float(info.curvature) == pytest.approx(float(direction @ damped @ direction), rel=1e-8)
    assert float(info.lr) == pytest.approx(float(gradient @ direction / (direction @ damped @ direction)), rel=1e-8)
    change = float(loss(outputs(theta + moved), targets) - value)
    used = curvature if make is KFAC else damped
    model_change = float(gradient @ moved + 0.5 * moved @ used @ moved)
    assert float(info.rho) == pytest.approx(change / model_change, rel=1e-6)
