"""Losses and their Hessian in the outputs, against automatic differentiation."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adamqlr import KFAC, AdamQLR
from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.losses import CrossEntropy, SquaredError


@given(rows=st.integers(1, 5), classes=st.integers(1, 6), scale=st.floats(0.01, 30), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_cross_entropy_hessian(rows: int, classes: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (rows,), generator=generator)
    vector = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    for smoothing in (0.0, 0.1):
        loss = CrossEntropy(label_smoothing=smoothing)
        _, expected = torch.autograd.functional.hvp(lambda out, loss=loss: loss(out, targets), outputs, vector)
        product = loss.hessian_vector_product(outputs, targets, vector)
        torch.testing.assert_close(product, expected, rtol=1e-9, atol=1e-12)


@given(rows=st.integers(1, 5), outputs=st.integers(1, 4), factor=st.sampled_from([0.5, 1.0]))
@settings(max_examples=20, deadline=None)
def test_squared_error_hessian_includes_the_average_over_outputs(rows: int, outputs: int, factor: float) -> None:
    predicted, targets, vector = torch.randn(3, rows, outputs, dtype=torch.float64)
    loss = SquaredError(factor)
    _, expected = torch.autograd.functional.hvp(lambda out: loss(out, targets), predicted, vector)
    torch.testing.assert_close(loss.hessian_vector_product(predicted, targets, vector), expected)
    assert float(loss(predicted, targets)) == pytest.approx(factor * float(((predicted - targets) ** 2).mean()))


def test_sequences_of_logits_are_averaged_over_positions() -> None:
    outputs, targets = torch.randn(2, 5, 3, dtype=torch.float64), torch.randint(5, (2, 3))
    vector = torch.randn_like(outputs)
    loss = resolve_loss("cross_entropy")
    _, expected = torch.autograd.functional.hvp(lambda out: loss(out, targets), outputs, vector)
    torch.testing.assert_close(loss.hessian_vector_product(outputs, targets, vector), expected)


def test_losses_without_a_number_or_a_curvature_are_refused() -> None:
    with pytest.raises(ValueError, match="MSELoss must reduce to one number: use reduction='mean' or 'sum'"):
        resolve_loss(nn.MSELoss(reduction="none"))
    with pytest.raises(ValueError, match="HingeEmbeddingLoss has no curvature"):
        resolve_loss(nn.HingeEmbeddingLoss())
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        resolve_loss("hinge")
    with pytest.raises(TypeError, match="a function of outputs and targets, got 3"):
        resolve_loss(3)  # type: ignore[arg-type]


def test_modules_with_the_protocol_are_accepted() -> None:
    class Own(nn.Module):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return outputs.sum()

        def hessian_vector_product(
            self, outputs: torch.Tensor, targets: torch.Tensor, vector: torch.Tensor
        ) -> torch.Tensor:
            return torch.zeros_like(vector)

    own = Own()
    assert resolve_loss(own) is own


def test_bytes_as_classes_with_weights_are_no_mask() -> None:
    targets, found = torch.tensor([1, 1, 1, 2, 2, 2]), []
    for kind in (torch.int64, torch.uint8):
        torch.manual_seed(0)
        model, loss = nn.Linear(4, 3), nn.CrossEntropyLoss(torch.tensor([1.0, 0.5, 2.0]))
        optimizer = AdamQLR(model, loss, microbatch=3)
        found.append(optimizer.step(torch.randn(6, 4), targets.to(kind)).loss)
    torch.testing.assert_close(*found)


def test_bytes_as_targets_all_count_where_none_is_ignored() -> None:
    """As bytes, −100 would be 156."""
    targets = torch.tensor([156, 3], dtype=torch.uint8)
    weight = CrossEntropy().weight(targets)
    assert isinstance(weight, Tensor)
    assert int(weight) == 2


def doubled(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


def touched(loss: nn.Module, way: str) -> nn.Module:
    """Have a module return twice its loss."""
    if way == "hook":
        loss.register_forward_hook(doubled)
    elif way == "pre-hook":
        loss.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2, inputs[1]))
    else:
        forward = loss.forward
        loss.forward = lambda *inputs: 2 * forward(*inputs)
    return loss


def cases(classes: bool) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    targets = torch.randint(3, (6,)) if classes else torch.randn(6, 3).double()
    return model, torch.randn(6, 4).double(), targets


@pytest.mark.parametrize("way", ["hook", "pre-hook", "patch"])
@pytest.mark.parametrize("maker", [AdamQLR, partial(KFAC, fisher="exact")])
@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.MSELoss, nn.HuberLoss])
def test_hooks_and_forwards_of_a_losss_own_count(kind: type[nn.Module], maker: Any, way: str) -> None:
    """As in a function that calls the module."""
    found = []
    for is_function in (False, True):
        model, inputs, targets = cases(kind is nn.CrossEntropyLoss)
        loss = touched(kind(), way)
        optimizer = maker(model, (lambda *inputs, loss=loss: loss(*inputs)) if is_function else loss)
        found.append([tuple(optimizer.step(inputs, targets)) for _ in range(2)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", ["hook", "pre-hook", "patch"])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MSELoss()])
def test_hooks_that_a_loss_is_given_later_are_refused(loss: nn.Module, way: str) -> None:
    model, inputs, targets = cases(not isinstance(loss, nn.MSELoss))
    loss = copy.deepcopy(loss)
    optimizer = AdamQLR(model, loss)
    optimizer.step(inputs, targets)
    touched(loss, way)
    name = type(loss).__name__
    with pytest.raises(ValueError, match=f"^{name} has been given hooks or a forward of its own: remove them, or make"):
        optimizer.step(inputs, targets)


def test_hooks_by_which_a_loss_cannot_be_taken_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^NLLLoss has hooks or a forward of its own, and is linear in the outputs"):
        resolve_loss(touched(nn.NLLLoss(), "hook"))
    model, inputs, targets = cases(classes=True)
    optimizer = AdamQLR(model, touched(nn.CrossEntropyLoss(), "hook"), microbatch=2)
    with pytest.raises(ValueError, match="outputs of shape"):
        AdamQLR(model, touched(nn.HuberLoss(), "hook")).step(inputs, inputs)
    with pytest.raises(ValueError, match=r"^CrossEntropyLoss has hooks .* give a loss with weight\(targets\)$"):
        optimizer.step(inputs, targets)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_losses_in_torchscript_are_named() -> None:
    model, _, _ = cases(classes=False)
    with pytest.raises(ValueError, match=r"^the loss is TorchScript: give the optimizer the module"):
        AdamQLR(model, torch.jit.script(nn.MSELoss()))
    scripted = torch.jit.script(nn.Linear(3, 3).double())
    with pytest.raises(ValueError, match=r"^a module that the loss or forward=… calls is TorchScript"):
        AdamQLR(model, lambda outputs, targets: (scripted(outputs) - targets).square().mean())


def zeroing(outputs: Tensor, targets: Tensor) -> Tensor:
    outputs[:, 0] = 0
    return (outputs - targets).square().mean()


def unnoticed(outputs: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        outputs.mul_(2)
    return (outputs - targets).square().mean()


@pytest.mark.parametrize("microbatch", [None, 2])
@pytest.mark.parametrize("loss", [zeroing, unnoticed])
def test_losses_that_write_into_the_outputs_are_refused(loss: Any, microbatch: int | None) -> None:
    model, inputs, targets = cases(classes=False)
    with pytest.raises(ValueError, match=r"^the loss writes into the outputs(, or its own parameters)?: clone them"):
        AdamQLR(model, loss, microbatch=microbatch).step(inputs, targets)
