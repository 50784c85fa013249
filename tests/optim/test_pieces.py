"""By what the losses of a minibatch's pieces are averaged: what the loss says, or an error."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr import AdamQLR
from adamqlr.optim.passes.given_loss import resolve_loss

ROWS, CLASSES = 12, 3
COUNTED = torch.tensor([1.0] * 4 + [0.0] * 5 + [1.0, 0.0, 1.0])
WEIGHTS = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)


def same_in_pieces(loss: Any, targets: Any) -> None:
    """See that a step in pieces, of which one has fewer targets that count, is the step on the whole."""
    found = []
    for rows in (None, 5):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
        info = AdamQLR(model, loss, microbatch=rows).step(torch.randn(ROWS, 4).double(), targets)
        found.append([info.loss, info.lr, *map(Tensor.detach, model.parameters())])
    torch.testing.assert_close(found[0], found[1])


def numbers() -> Tensor:
    return torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(1)).double()


def classes(ignored: bool = False) -> Tensor:
    targets = torch.arange(ROWS) % CLASSES
    return torch.where(COUNTED > 0, targets, -100) if ignored else targets


def masked(outputs: Tensor, targets: Any) -> Tensor:
    wanted, counted = targets
    return ((outputs - wanted).square().mean(1) * counted).sum() / counted.sum().clamp(min=1)


def counted(targets: Any) -> Tensor:
    number: Tensor = targets[1].sum()
    return number


class Masked:
    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        return masked(outputs, targets)

    def weight(self, targets: Any) -> Tensor:
        return counted(targets)


class MaskedModule(nn.Module):
    def forward(self, outputs: Tensor, targets: Any) -> Tensor:
        return masked(outputs, targets)

    def weight(self, targets: Any) -> Tensor:
        return counted(targets)


def a_function_with_an_attribute() -> Callable[..., Tensor]:
    def loss(outputs: Tensor, targets: Any, factor: float = 1.0) -> Tensor:
        return factor * masked(outputs, targets)

    loss.weight = counted  # type: ignore[attr-defined]
    return loss


@pytest.mark.parametrize(
    "make",
    [
        Masked,
        MaskedModule,
        a_function_with_an_attribute,
        lambda: MaskedModule().forward,
        lambda: functools.partial(a_function_with_an_attribute(), factor=2.0),
    ],
    ids=["object", "module", "function", "forward", "partial"],
)
def test_a_loss_of_ones_own_says_by_what_pieces_count(make: Callable[[], Any]) -> None:
    same_in_pieces(make(), (numbers(), COUNTED.double()))


class Alike(nn.CrossEntropyLoss):
    """Leaves the forward pass alone."""


class OfItsOwn(nn.CrossEntropyLoss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input.flatten(1), target)


class SquaresAlike(nn.MSELoss):
    """Leaves the forward pass alone."""


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (Alike(), classes(ignored=True)),
        (Alike(WEIGHTS), classes()),
        (nn.CrossEntropyLoss(WEIGHTS).forward, classes()),
        (nn.CrossEntropyLoss(WEIGHTS).__call__, classes()),
        (nn.MSELoss(reduction="sum").forward, numbers()),
        (nn.HuberLoss(reduction="sum").forward, numbers()),
        (SquaresAlike(reduction="sum"), numbers()),
    ],
    ids=["ignored", "weights", "forward", "call", "sum", "sum of one that is differentiated", "subclass of a sum"],
)
def test_subclasses_and_methods_of_pytorchs_losses_count_as_these_do(loss: Any, targets: Tensor) -> None:
    same_in_pieces(loss, targets)


@pytest.mark.parametrize("method", [False, True])
def test_where_a_cross_entropys_own_forward_pass_leaves_it_open_pieces_are_refused(method: bool) -> None:
    loss: Any = OfItsOwn(WEIGHTS)
    model = nn.Linear(4, CLASSES).double()
    optimizer = AdamQLR(model, loss.forward if method else loss, microbatch=5)
    with pytest.raises(ValueError, match=r"^OfItsOwn has hooks or a forward of its own, .* with weight\(targets\)$"):
        optimizer.step(torch.randn(ROWS, 4).double(), classes())


def test_a_losss_own_layer_called_weight_is_no_number() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Linear(CLASSES, CLASSES).double()

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.weight(outputs - targets).square().mean()

    same_in_pieces(Learned(), numbers())


def test_the_forward_pass_of_a_loss_with_hooks_goes_around_them() -> None:
    module = nn.MSELoss()
    module.register_forward_hook(lambda module, given, output: 2 * output)
    outputs, targets = torch.randn(ROWS, CLASSES), torch.randn(ROWS, CLASSES)
    for loss in (module, module.forward):
        torch.testing.assert_close(resolve_loss(loss)(outputs, targets), loss(outputs, targets))
