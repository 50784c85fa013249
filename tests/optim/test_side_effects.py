"""Models and losses that write where no step expects it: into the minibatch, frozen parameters, buffers of any kind."""

import copy
from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr import KFAC, AdamQLR

ROWS = 12


@pytest.fixture(params=[AdamQLR, KFAC])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, 4), torch.randint(3, (ROWS,))


# The minibatch.


class Shifted(nn.Sequential):
    """A network that moves its inputs, which are its caller's."""

    def forward(self, input: Tensor) -> Tensor:
        input -= 0.5
        outputs: Tensor = super().forward(input)
        return outputs


def shifting_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    targets -= 1
    return functional.cross_entropy(outputs, targets % 3)


def ends() -> list[nn.Module]:
    return [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)]


WRITERS: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "a forward pass": (lambda: Shifted(*ends()), "cross_entropy", "inputs"),
    "dropout in place": (lambda: nn.Sequential(nn.Dropout(inplace=True), *ends()), "cross_entropy", "inputs"),
    "a loss": (lambda: nn.Sequential(*ends()), shifting_loss, "targets"),
}


@pytest.mark.parametrize("options", [{}, {"microbatch": 5}], ids=str)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_minibatch_that_is_changed_in_place_is_refused(make: Any, writer: str, options: dict[str, Any]) -> None:
    build, loss, changed = WRITERS[writer]
    model = build()
    before = copy.deepcopy(model.state_dict())
    optimizer = make(model, loss, **options)
    message = f"the forward pass or the loss changes the {changed} in place, .*: clone them there"
    with pytest.raises(ValueError, match=message):
        optimizer.step(*batch())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def replacing_entry(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    batch["x"] = (batch["x"] - 2) / 3
    outputs: Tensor = model(batch["x"])
    return outputs


def replacing_item(model: nn.Module, batch: dict[str, list[Tensor]]) -> Tensor:
    batch["x"][0] = batch["x"][0] + 1
    outputs: Tensor = model(batch["x"][0])
    return outputs


def replacing_target(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    targets["y"] = (targets["y"] + 1) % 3
    return functional.cross_entropy(outputs, targets["y"])


@pytest.mark.parametrize("microbatch", [None, 5])
@pytest.mark.parametrize("forward", [replacing_entry, replacing_item])
def test_an_entry_of_the_inputs_that_is_replaced_is_refused(make: Any, forward: Any, microbatch: int | None) -> None:
    inputs, targets = batch()
    given: Any = {"x": inputs if forward is replacing_entry else [inputs]}
    optimizer = make(nn.Sequential(*ends()), "cross_entropy", forward=forward, microbatch=microbatch)
    with pytest.raises(ValueError, match=r"changes the inputs in place, .* put entries into a copy of their dict"):
        optimizer.step(given, targets)


@pytest.mark.parametrize("options", [{}, {"microbatch": 5}], ids=str)
def test_an_entry_of_the_targets_that_is_replaced_is_refused(options: dict[str, Any]) -> None:
    inputs, targets = batch()
    optimizer = AdamQLR(nn.Sequential(*ends()), replacing_target, **options)
    with pytest.raises(ValueError, match="changes the targets in place"):
        optimizer.step(inputs, {"y": targets})


def test_entries_may_be_replaced_in_a_copy(make: Any) -> None:
    inputs, targets = batch()
    optimizer = make(
        nn.Sequential(*ends()), "cross_entropy", forward=lambda model, given: replacing_entry(model, dict(given))
    )
    assert optimizer.step({"x": inputs}, targets).rho.isfinite()


class Lazy(UserDict[str, Tensor]):
    """Makes its tensors at each look."""

    def __getitem__(self, key: str) -> Tensor:
        return self.data[key] * 1


def test_a_mapping_may_make_its_tensors_at_each_look(make: Any) -> None:
    inputs, targets = batch()
    optimizer = make(nn.Sequential(*ends()), "cross_entropy", forward=lambda model, given: model(given["x"]))
    assert optimizer.step(Lazy(x=inputs), targets).rho.isfinite()


def test_minibatches_made_in_inference_mode_are_trained_on(make: Any) -> None:
    with torch.inference_mode():
        inputs, targets = batch()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets.clone())

    optimizer = make(nn.Sequential(*ends()), loss, forward=lambda model, inputs: model(inputs.clone()))
    assert optimizer.step(inputs, targets).rho.isfinite()


# Parameters that are not trained.


class MomentumEncoder(nn.Module):
    """Two encoders, of which the second follows the first, as in MoCo."""

    def __init__(self, move: Callable[[nn.Parameter, Tensor], None] | None) -> None:
        super().__init__()
        self.query = nn.Linear(4, 8)
        self.key = nn.Linear(4, 8).requires_grad_(False)
        self.move = move

    def follow(self, move: Callable[[nn.Parameter, Tensor], None]) -> None:
        with torch.no_grad():
            for key, query in zip(self.key.parameters(), self.query.parameters(), strict=True):
                move(key, 0.9 * key + 0.1 * query)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.move is not None:
            self.follow(self.move)
        keys = functional.normalize(self.key(inputs), dim=1)
        return functional.normalize(self.query(inputs), dim=1) @ keys.T


def in_place(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.copy_(value)


def by_data(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.data = value


def into_data(parameter: nn.Parameter, value: Tensor) -> None:
    parameter.data.copy_(value)


@pytest.mark.parametrize("move", [in_place, by_data, into_data])
def test_frozen_parameters_that_a_pass_moves_are_named(make: Any, move: Callable[[nn.Parameter, Tensor], None]) -> None:
    optimizer = make(MomentumEncoder(move), "cross_entropy")
    message = (
        "the forward pass moves key.weight, which is not trained, .*: move it between steps, or keep it as a buffer"
    )
    # Also where somebody goes on after the error.
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            optimizer.step(torch.randn(ROWS, 4), torch.arange(ROWS))


def test_frozen_parameters_may_move_between_steps(make: Any) -> None:
    model = MomentumEncoder(None)
    optimizer = make(model, "cross_entropy")
    for _ in range(3):
        model.follow(into_data)
        assert optimizer.step(torch.randn(ROWS, 4), torch.arange(ROWS)).rho.isfinite()


def test_frozen_embeddings_with_a_largest_norm_are_trained_behind(make: Any) -> None:
    embedding = nn.Embedding(5, 4, max_norm=1.0).requires_grad_(False)
    optimizer = make(nn.Sequential(embedding, nn.Linear(4, 3)), "cross_entropy")
    assert optimizer.step(torch.randint(5, (ROWS,)), torch.randint(3, (ROWS,))).rho.isfinite()


# Parameters that are.


class Moving(nn.Linear):
    """A layer that moves its own weight at each pass, after some that leave it."""

    def __init__(self, move: Callable[[Tensor], Any], rests: int = 0) -> None:
        super().__init__(4, 3)
        self.move, self.rests = move, rests

    def forward(self, input: Tensor) -> Tensor:
        if self.rests:
            self.rests -= 1
        else:
            with torch.no_grad():
                self.move(self.weight)
        return super().forward(input)


def shrinking_data(weight: Tensor) -> None:
    weight.data = 0.9 * weight.data


MOVES: dict[str, Callable[[Tensor], Any]] = {
    "in place": lambda weight: weight.mul_(0.5),
    "into data": lambda weight: weight.data.mul_(0.5),
    "other data": shrinking_data,
    "noise": lambda weight: weight.add_(0.01 * torch.randn_like(weight)),
}


@pytest.mark.parametrize("options", [{}, {"microbatch": 5}], ids=str)
@pytest.mark.parametrize("move", MOVES)
def test_a_trained_parameter_that_a_pass_moves_is_named(make: Any, move: str, options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), Moving(MOVES[move]))
    optimizer = make(model, "cross_entropy", **options)
    message = (
        r"the forward pass moves 2\.weight, and later passes of the step would move it again: move it between steps"
    )
    # Also where somebody goes on after the error.
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            optimizer.step(*batch())


def test_a_trained_parameter_that_a_pass_moves_later_is_named(make: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), Moving(MOVES["in place"], rests=6))
    optimizer = make(model, "cross_entropy")
    with pytest.raises(ValueError, match=r"the forward pass moves 2\.weight"):  # noqa: PT012
        for _ in range(5):
            optimizer.step(*batch())


CONSTRAINTS: dict[str, Callable[[Tensor], Any]] = {
    "clamped": lambda weight: weight.clamp_(-0.1, 0.1),
    "clamped data": lambda weight: weight.data.clamp_(min=0),
    "rows of one length": lambda weight: weight.div_(weight.norm(dim=1, keepdim=True)),
    "spectral": lambda weight: weight.div_(torch.linalg.matrix_norm(weight, 2)),
    "noise that is taken back": lambda weight: weight.add_(1).sub_(1),
}


@pytest.mark.parametrize("options", [{}, {"microbatch": 5}, {"curvature": "hessian"}], ids=str)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_constraints_within_the_forward_pass_are_those_between_steps(constraint: str, options: dict[str, Any]) -> None:
    found = []
    for within in (True, False):
        torch.manual_seed(0)
        layer = Moving(CONSTRAINTS[constraint], rests=0 if within else 10**9)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.BatchNorm1d(4), nn.Tanh(), layer)
        optimizer = AdamQLR(model, "cross_entropy", adapt_damping=False, lr_clipping=0.1, **options)
        for _ in range(4):
            with torch.no_grad():
                CONSTRAINTS[constraint](layer.weight)
            optimizer.step(*batch())
        found.append([p.detach() for p in model[:4].parameters()] + list(model.buffers()))
    torch.testing.assert_close(found[0], found[1])


# Buffers.


class Positions(nn.Module):
    """Adds an encoding that it keeps, and makes anew where inputs are longer."""

    encoding: Tensor | None
    calls: Tensor | None

    def __init__(self, length: int | None) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("encoding", None if length is None else self.made(length), persistent=False)
        self.register_buffer("calls", None)

    @staticmethod
    def made(length: int) -> Tensor:
        return torch.arange(4.0 * length).view(length, 4) / 10

    def forward(self, inputs: Tensor) -> Tensor:
        length = inputs.shape[1]
        if self.encoding is None or len(self.encoding) < length:
            self.encoding = self.made(length)
        self.calls = torch.ones(()) if self.calls is None else self.calls + 1
        outputs: Tensor = self.linear(inputs + self.encoding[:length] * self.calls).mean(dim=1)
        return outputs


class Constant(nn.Module):
    """Multiplies by a buffer that never changes."""

    buffer: Tensor

    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("buffer", buffer)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.buffer @ inputs)
        return outputs


def assert_promised(model: nn.Module, optimizer: Any, inputs: Tensor, targets: Tensor) -> None:
    """Assert that the loss before and after is that of one forward pass, from which buffers are left."""
    # Sparse rows cannot be copied, and stay as they are.
    kept = {id(buffer): buffer for buffer in model.buffers() if buffer.layout == torch.sparse_csr}
    before, after = copy.deepcopy(model, dict(kept)), copy.deepcopy(model, dict(kept))
    info = optimizer.step(inputs, targets)
    first = functional.cross_entropy(before(inputs), targets)
    torch.testing.assert_close(info.loss, first.detach())
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()).detach(), after.parameters())
    change = functional.cross_entropy(after(inputs), targets) - first
    assert float(info.true_change) == pytest.approx(change.item(), rel=1e-3)
    for mine, wanted in zip(model.buffers(), before.buffers(), strict=True):
        assert torch.equal(mine.to_dense(), wanted.to_dense())


@pytest.mark.parametrize("options", [{}, {"on_nonfinite": "skip"}], ids=str)
@pytest.mark.parametrize("length", [None, 4, 8])
def test_buffers_may_grow(make: Any, length: int | None, options: dict[str, Any]) -> None:
    model = Positions(length)
    optimizer = make(model, "cross_entropy", **options)
    for longer in (6, 6, 9):
        assert_promised(model, optimizer, torch.randn(ROWS, longer, 4), torch.randint(3, (ROWS,)))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("options", [{}, {"on_nonfinite": "skip"}], ids=str)
@pytest.mark.parametrize(
    "buffer",
    [
        lambda: torch.full((ROWS, 1), 0.5).expand(ROWS, ROWS),
        lambda: torch.eye(ROWS).to_sparse(),
        lambda: torch.eye(ROWS).to_sparse_csr(),
    ],
    ids=["expanded", "sparse", "sparse rows"],
)
def test_buffers_may_be_expanded_or_sparse(make: Any, buffer: Callable[[], Tensor], options: dict[str, Any]) -> None:
    model = Constant(buffer())
    optimizer = make(model, "cross_entropy", **options)
    for _ in range(2):
        assert_promised(model, optimizer, *batch())


def test_a_refused_step_takes_back_a_buffer_that_has_grown(make: Any) -> None:
    model = Positions(4)
    optimizer = make(model, "cross_entropy", on_nonfinite="skip")
    before = copy.deepcopy(dict(model.named_parameters())), model.encoding
    info = optimizer.step(torch.full((ROWS, 6, 4), torch.nan), torch.randint(3, (ROWS,)))
    assert not info.taken
    torch.testing.assert_close((dict(model.named_parameters()), model.encoding), before, rtol=0, atol=0)
    assert model.calls is None


class Centered(nn.Module):
    """A loss around a mean that moves with the outputs."""

    center: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(3))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = (outputs - targets - self.center).square().mean()
        self.center.lerp_(outputs.detach().mean(dim=0), 0.5)
        return loss


def test_a_refused_step_leaves_the_losss_buffers_as_they_were(make: Any) -> None:
    loss = Centered()
    optimizer = make(nn.Linear(4, 3), loss, on_nonfinite="skip")
    inputs, targets = torch.randn(ROWS, 4), torch.randn(ROWS, 3)
    assert optimizer.step(inputs, targets).taken
    before = loss.center.clone()
    assert not optimizer.step(inputs * torch.nan, targets).taken
    assert torch.equal(loss.center, before)
    assert optimizer.step(inputs, targets).taken


class Initialized(nn.Module):
    """A layer that its first minibatch scales."""

    scale: Tensor
    is_ready: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.zeros(4))
        self.register_buffer("is_ready", torch.tensor(False))

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.is_ready:
            with torch.no_grad():
                self.scale.copy_(inputs.std(dim=0))
                self.is_ready.fill_(True)
        return inputs / self.scale


@pytest.mark.parametrize("policy", ["propagate", "skip"])
def test_truth_values_are_replayed_as_other_buffers_are(make: Any, policy: str) -> None:
    """The pass after the step initializes as the first one did: the step is that of the initialized layer."""
    some, infos = batch(), []
    for is_ready in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 4), Initialized(), nn.Linear(4, 3))
        if is_ready:
            model(some[0])
        infos.append(make(model, "cross_entropy", on_nonfinite=policy, lr=0.0, momentum=0.0).step(*some))
    assert infos[0].taken
    assert float(infos[0].true_change) == float(infos[1].true_change) == 0.0
