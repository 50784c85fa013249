"""What a loss and a network may do beyond a function of outputs and targets: right, or refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from adamqlr import KFAC, QLR, AdamQLR

ROWS = 12


def classifier() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return model, torch.randn(ROWS, 5, dtype=torch.float64), torch.randint(3, (ROWS,))


def penalty(model: nn.Sequential, inputs: Tensor) -> Tensor:
    return model.get_parameter("0.weight").square().sum()


def hidden(model: nn.Sequential, inputs: Tensor) -> Tensor:
    return functional.linear(inputs, model.get_parameter("0.weight")).abs().mean()


@pytest.mark.parametrize("term", [penalty, hidden])
@pytest.mark.parametrize("microbatch", [None, 4], ids=str)
def test_what_a_loss_takes_otherwise_than_by_the_outputs_is_refused_or_differentiated(
    term: Callable[[nn.Sequential, Tensor], Tensor], microbatch: int | None
) -> None:
    model, inputs, targets = classifier()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets) + 0.1 * term(model, inputs)

    with pytest.raises(ValueError, match=r"otherwise than by the outputs.*use curvature='hessian', weight_decay"):
        AdamQLR(model, loss, microbatch=microbatch).step(inputs, targets)
    wanted = torch.autograd.grad(loss(model(inputs), targets), list(model.parameters()))
    QLR(model, loss, "gradient", curvature="hessian").step(inputs, targets)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


class Centered(nn.Module):
    """A loss about a moving mean of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.center: Tensor
        self.register_buffer("center", torch.zeros(3, dtype=torch.float64))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = (outputs - targets - self.center).square().mean()
        self.center.lerp_(outputs.detach().mean(dim=0), 0.5)
        return loss


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
@pytest.mark.parametrize("microbatch", [None, ROWS], ids=str)
def test_buffers_of_a_loss_move_once_a_step(curvature: Any, microbatch: int | None) -> None:
    model, inputs, _ = classifier()
    targets, loss = torch.randn(ROWS, 3, dtype=torch.float64), Centered()
    mean = model(inputs).mean(dim=0).detach()
    info = AdamQLR(model, loss, lr=1e-30, curvature=curvature, microbatch=microbatch).step(inputs, targets)
    torch.testing.assert_close(loss.center, 0.5 * mean)
    assert float(info.true_change) == 0


class Heads(nn.Module):
    """Two heads, of which a minibatch uses one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.heads, self.used = nn.Linear(5, 6), nn.ModuleList(nn.Linear(6, 3) for _ in range(2)), 0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.heads[self.used](torch.tanh(self.body(inputs)))
        return outputs


def over_adam(model: nn.Module, loss: str, **options: Any) -> QLR:
    return QLR(model, loss, torch.optim.Adam(model.parameters()), **options)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9, "weight_decay": 0.1}, {"microbatch": 5}, {"curvature": "hessian"}], ids=str
)
@pytest.mark.parametrize("make", [AdamQLR, over_adam])
def test_what_a_minibatch_does_not_use_stays(make: Any, options: dict[str, Any]) -> None:
    model, inputs, targets = Heads(), torch.randn(ROWS, 5), torch.randint(3, (ROWS,))
    optimizer = make(model, "cross_entropy", **options)
    for _ in range(3):
        optimizer.step(inputs, targets)
    model.used = 1
    head = model.get_parameter("heads.0.weight")
    before = head.detach().clone()
    for _ in range(3):
        optimizer.step(inputs, targets)
    assert torch.equal(head, before)
    assert head.grad is None
    model.used = 0
    optimizer.step(inputs, targets)
    assert not torch.equal(head, before)


def test_a_minibatch_that_uses_nothing_that_is_trained_is_refused() -> None:
    model, inputs, targets = Heads(), torch.randn(ROWS, 5), torch.randint(3, (ROWS,))
    optimizer = AdamQLR(model, "cross_entropy", params=model.heads[1].parameters())
    with pytest.raises(ValueError, match="outputs depend on no trained parameter"):
        optimizer.step(inputs, targets)


class Attention(nn.Module):
    """A block of PyTorch's fused attention, computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def _attend(self, inputs: Tensor) -> Tensor:
        # Of shape (rows, heads, positions, features).
        features = self.block(inputs).view(len(inputs), 1, 5, 1)
        return functional.scaled_dot_product_attention(features, features, features).flatten(1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(checkpoint(self._attend, inputs, use_reentrant=False))
        return outputs


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
def test_a_checkpointed_block_that_is_computed_otherwise_again_is_refused(make: Any) -> None:
    with pytest.raises(RuntimeError, match=r"a checkpointed block .* give microbatch=… to save memory"):
        make(Attention(), "cross_entropy").step(torch.randn(ROWS, 5), torch.randint(3, (ROWS,)))


class Brier(nn.MSELoss):
    """The squared error of probabilities, whose Hessian is no diagonal."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input.softmax(dim=1), functional.one_hot(target, 3).to(input.dtype))


def test_of_a_subclass_of_an_elementwise_loss_nothing_is_taken_for_granted() -> None:
    chosen = []
    for loss in (Brier(), lambda outputs, targets: Brier()(outputs, targets)):
        model, inputs, targets = classifier()
        chosen.append(float(KFAC(model, loss, fisher="exact").step(inputs, targets).lr))
    assert chosen[0] == pytest.approx(chosen[1], rel=1e-12)


def test_a_loss_may_compute_in_another_precision() -> None:
    def chosen(dtype: torch.dtype) -> float:
        model, inputs, targets = classifier()
        probabilities = functional.one_hot(targets, 3).to(dtype)
        return float(AdamQLR(model.float(), nn.CrossEntropyLoss(), lr=None).step(inputs.float(), probabilities).lr)

    assert chosen(torch.float64) == pytest.approx(chosen(torch.float32), rel=1e-4)
