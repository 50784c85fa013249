"""What a step reads of its surroundings: a loss's options, hooks of all modules, precisions and rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as hooks

from adamqlr import KFAC, QLR, AdamQLR

ROWS = 12
ACTIVATIONS = pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])


@pytest.fixture(params=[AdamQLR, KFAC])
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def network(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), activation(), nn.Linear(5, 3))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, 4), torch.randint(3, (ROWS,))


def message_of(kind: type[Exception], act: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A loss whose options change.


@ACTIVATIONS
@pytest.mark.parametrize(("option", "start", "later"), [("label_smoothing", 0.2, 0.0), ("label_smoothing", 0.0, 0.2)])
def test_options_of_a_loss_are_read_at_each_step(
    make: Any, activation: type[nn.Module], option: str, start: Any, later: Any
) -> None:
    model, loss, (inputs, targets) = network(activation), nn.CrossEntropyLoss(**{option: start}), batch()
    optimizer = make(model, loss)
    optimizer.step(inputs, targets)
    setattr(loss, option, later)
    before = loss(model(inputs), targets)
    info = optimizer.step(inputs, targets)
    assert float(info.loss) == pytest.approx(before.item(), rel=1e-5)
    assert float(info.true_change) == pytest.approx((loss(model(inputs), targets) - before).item(), rel=1e-3)


@ACTIVATIONS
@pytest.mark.parametrize("build", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_weights_of_classes_may_be_set_later(make: Any, build: Callable[[], Any], activation: type[nn.Module]) -> None:
    layers = [*network(activation), *([nn.LogSoftmax(dim=1)] if build is nn.NLLLoss else [])]
    model, loss, (inputs, targets) = nn.Sequential(*layers), build(), batch()
    optimizer = make(model, loss)
    optimizer.step(inputs, targets)
    loss.weight = torch.tensor([10.0, 1.0, 1.0])
    wanted = loss(model(inputs), targets).item()
    assert float(optimizer.step(inputs, targets).loss) == pytest.approx(wanted, rel=1e-5)


@ACTIVATIONS
def test_a_mean_that_becomes_a_sum_is_one(make: Any, activation: type[nn.Module]) -> None:
    model, loss, inputs, targets = network(activation), nn.MSELoss(), torch.randn(ROWS, 4), torch.randn(ROWS, 3)
    optimizer = make(model, loss)
    loss.reduction = "sum"
    wanted = loss(model(inputs), targets).item()
    assert float(optimizer.step(inputs, targets).loss) == pytest.approx(wanted, rel=1e-5)


# Hooks of all modules.


@ACTIVATIONS
def test_forward_hooks_of_all_modules_are_called(make: Any, activation: type[nn.Module]) -> None:
    def halve(module: nn.Module, inputs: Any, output: Tensor) -> Any:
        return 0.5 * output if isinstance(module, activation) else None

    model, (inputs, targets) = network(activation), batch()
    optimizer = make(model, "cross_entropy")
    handle = hooks.register_module_forward_hook(halve)
    try:
        wanted = functional.cross_entropy(model(inputs), targets).item()
        assert float(optimizer.step(inputs, targets).loss) == pytest.approx(wanted, rel=1e-5)
    finally:
        handle.remove()


@ACTIVATIONS
@pytest.mark.parametrize("register", ["register_module_full_backward_hook", "register_module_full_backward_pre_hook"])
def test_backward_hooks_of_all_modules_are_refused(make: Any, register: str, activation: type[nn.Module]) -> None:
    optimizer = make(network(activation), "cross_entropy")
    optimizer.step(*batch())
    handle = getattr(hooks, register)(lambda module, *gradients: None)
    try:
        assert message_of(ValueError, lambda: optimizer.step(*batch())) == (
            "all modules have a global backward hook, which the curvature knows nothing of: remove it"
        )
    finally:
        handle.remove()
    optimizer.step(*batch())


# Precisions.


class Autocast(nn.Module):
    """A network that computes in less precision by itself."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network(), dtype

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            outputs: Tensor = self.network(inputs)
        return outputs


def test_autocast_to_float16_within_a_model_is_refused(make: Any) -> None:
    assert message_of(RuntimeError, lambda: make(Autocast(torch.float16), "cross_entropy").step(*batch())) == (
        "float16 needs its loss scaled, which the step cannot do: use torch.autocast(…, dtype=torch.bfloat16)"
    )


def test_autocast_to_bfloat16_within_a_model_is_as_around_the_step(make: Any) -> None:
    inner = Autocast(torch.bfloat16)
    outer = network()
    outer.load_state_dict(inner.network.state_dict())
    inputs, targets = batch()
    torch.manual_seed(1)
    found = make(inner, "cross_entropy").step(inputs, targets)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = make(outer, "cross_entropy").step(inputs, targets)
    # In bfloat16 a loss has three digits, and its change fewer.
    assert found.loss.dtype == torch.float32
    assert float(found.loss) == float(wanted.loss)
    assert float(found.lr) == pytest.approx(float(wanted.lr), rel=0.05)
    assert float(found.rho) == pytest.approx(float(wanted.rho), rel=0.05)


def test_complex_outputs_say_what_to_return(make: Any) -> None:
    class Spectrum(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return torch.fft.fft(super().forward(input))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().square().mean()

    optimizer = make(Spectrum(4, 8), loss)
    assert message_of(ValueError, lambda: optimizer.step(torch.randn(ROWS, 4), torch.randn(ROWS, 8))) == (
        "the model's outputs are torch.complex64: return real numbers, such as torch.view_as_real(outputs)"
    )


def test_what_a_forward_of_ones_own_returns_is_a_tensor(make: Any) -> None:
    optimizer = make(network(), "cross_entropy", forward=lambda model, inputs: {"logits": model(inputs)})
    message = message_of(TypeError, lambda: optimizer.step(*batch()))
    assert message.startswith("the model returned a dict, not a tensor: give the optimizer what the loss takes")


# Rows.


@dataclass
class Table:
    rows: Tensor


class Opaque:
    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


@pytest.mark.parametrize("kind", [Table, Opaque])
def test_a_forward_of_ones_own_takes_anything(make: Any, kind: Callable[[Tensor], Any]) -> None:
    inputs, targets = batch()
    model = network()
    wanted = functional.cross_entropy(model(inputs), targets).item()
    optimizer = make(model, "cross_entropy", forward=lambda model, table: model(table.rows))
    assert float(optimizer.step(kind(inputs), targets).loss) == pytest.approx(wanted, rel=1e-5)
    pieces = make(network(), "cross_entropy", forward=lambda model, table: model(table.rows), microbatch=5)
    with pytest.raises((TypeError, ValueError), match="microbatch"):
        pieces.step(kind(inputs), targets)


def test_numbers_may_stand_before_tensors_with_rows(make: Any) -> None:
    inputs, targets = batch()
    table = {"scale": torch.tensor(2.0), "rows": inputs}
    optimizer = make(network(), "cross_entropy", forward=lambda model, table: table["scale"] * model(table["rows"]))
    assert optimizer.step(table, targets).rho.isfinite()


def per_row(outputs: Tensor, targets: list[Tensor]) -> Tensor:
    """The mean over rows of errors in as many outputs as a row has targets."""
    errors = [(row[: len(own)] - own).square().sum() for row, own in zip(outputs, targets, strict=True)]
    return torch.stack(errors).mean()


@pytest.mark.parametrize("microbatch", [1, 5])
@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_of_one_target_a_row_are_cut(kind: Callable[[list[Tensor]], Any], microbatch: int) -> None:
    inputs = torch.randn(ROWS, 4, dtype=torch.float64)
    targets = kind([torch.randn(1 + row % 3, dtype=torch.float64) for row in range(ROWS)])
    found = []
    for size in (None, microbatch):
        torch.manual_seed(1)
        optimizer = AdamQLR(network().double(), per_row, microbatch=size)
        found.append(torch.stack(list(optimizer.step(inputs, targets)[:5])))
    torch.testing.assert_close(*found)


def test_what_cannot_be_cut_is_refused() -> None:
    def message(inputs: Any, targets: Any) -> str:
        optimizer = QLR(network(), per_row, "gradient", forward=lambda model, _: model(torch.zeros(5, 4)), microbatch=5)
        return message_of(ValueError, lambda: optimizer.step(inputs, targets))

    rows = torch.randn(ROWS, 4)
    assert message(rows, torch.zeros(ROWS + 1)) == (
        "microbatch cuts rows, and no tensor or list of the targets has the 12 of them that the inputs have"
    )
    # One of them happens to be as long as the minibatch.
    assert message(rows, [torch.zeros(row + 1) for row in range(ROWS)]) == (
        "microbatch cannot tell whether the 12 items of a list in the targets are rows: stack rows to one tensor, or "
        "name what they are in a dict"
    )


# Second derivatives.


def alignment(outputs: Tensor, targets: Tensor) -> Tensor:
    rows = len(outputs)
    lengths = torch.full((rows,), outputs.shape[1]), torch.full((rows,), targets.shape[1])
    return functional.ctc_loss(outputs.log_softmax(-1).transpose(0, 1), targets, *lengths)


def test_losses_without_second_derivatives_are_named(make: Any) -> None:
    cure = "use another, or give it a hessian_vector_product (adamqlr.Loss)"
    optimizer = make(network(), nn.MultiMarginLoss())
    assert message_of(RuntimeError, lambda: optimizer.step(*batch())) == (
        "curvature needs a loss, here MultiMarginLoss, that can be differentiated twice (derivative for "
        f"aten::multi_margin_loss_backward is not implemented): {cure}"
    )
    optimizer = make(network(), alignment)
    assert message_of(RuntimeError, lambda: optimizer.step(torch.randn(4, 6, 4), torch.randint(1, 3, (4, 2)))) == (
        "curvature needs a loss, here alignment, that can be differentiated twice (derivative for "
        f"aten::_ctc_loss_backward is not implemented): {cure}"
    )


def test_compiled_functions_within_a_model_are_named() -> None:
    class Compiled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            outputs: Tensor = compiled(super().forward(input))
            return outputs

    compiled = torch.compile(lambda features: features.tanh() * 2, backend="aot_eager")
    for curvature in ("fisher", "hessian"):
        optimizer = AdamQLR(Compiled(4, 3), "cross_entropy", curvature=curvature)
        assert message_of(RuntimeError, partial(optimizer.step, *batch())).endswith(
            "that can be differentiated twice (a function is compiled): call the function that torch.compile was given"
        )


@pytest.mark.parametrize(
    "loss",
    [nn.CosineEmbeddingLoss(), nn.CTCLoss(), nn.GaussianNLLLoss(), nn.TripletMarginLoss()],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_of_more_than_outputs_and_targets_say_so(make: Any, loss: nn.Module) -> None:
    assert message_of(ValueError, lambda: make(network(), loss)) == (
        f"{type(loss).__name__} takes more than outputs and targets: use a function of these two that calls it"
    )


# What K-FAC's layers see.


@ACTIVATIONS
@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_kfac_names_a_layer_with_sparse_inputs(activation: type[nn.Module], sparse: Callable[[Tensor], Tensor]) -> None:
    model, (inputs, targets) = network(activation), batch()
    assert message_of(ValueError, lambda: KFAC(model, "cross_entropy").step(sparse(inputs), targets)) == (
        "K-FAC needs dense inputs of the module '0': convert them with to_dense(), or use AdamQLR"
    )
    assert AdamQLR(model, "cross_entropy").step(sparse(inputs), targets).rho.isfinite()


def test_kfac_names_a_layer_that_is_called_again_or_never() -> None:
    class Calls(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.inner, self.last, self.times = nn.Linear(4, 4), nn.Linear(4, 3), times

        def forward(self, features: Tensor) -> Tensor:
            for _ in range(self.times):
                features = self.inner(features)
            outputs: Tensor = self.last(features)
            return outputs

    for times, how in ((2, "called again"), (0, "not called")):
        optimizer = KFAC(Calls(times), "cross_entropy")
        assert message_of(ValueError, partial(optimizer.step, *batch())) == (
            f"K-FAC needs each layer called once in a forward pass, and the module 'inner' was {how}: freeze it, or "
            "use AdamQLR"
        )
