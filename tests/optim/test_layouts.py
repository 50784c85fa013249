"""How a network lays its tensors out within: the positions of a sequence first, flattened, or not contiguous."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, AdamQLR
from adamqlr.optim.passes.given_loss import resolve_loss

ROWS, POSITIONS = 8, 5


class Sequences(nn.Module):
    """One function of inputs (rows, positions, 4), whichever way its layers see them."""

    def __init__(self, layout: str, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layout, self.first, self.last = layout, nn.Linear(4, 3), nn.Linear(3, 2)
        self.norm = nn.LayerNorm(3) if norm else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        rows = len(inputs)
        if self.layout == "positions first":
            inputs = inputs.transpose(0, 1)
        elif self.layout == "flattened":
            inputs = inputs.flatten(0, 1)
        outputs: Tensor = self.last(self.norm(torch.tanh(self.first(inputs))))
        if self.layout == "positions first":
            outputs = outputs.transpose(0, 1).contiguous()
        return outputs.view(rows, -1, 2)


def chosen(layout: str, norm: bool, microbatch: int | None) -> list[float]:
    """Return the learning rates of three steps."""
    model = Sequences(layout, norm).double()
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(ROWS, POSITIONS, size, generator=generator, dtype=torch.float64) for size in (4, 2))
    optimizer = KFAC(model, "half_mse", fisher="exact", damping=0.1, microbatch=microbatch)
    return [float(optimizer.step(inputs, targets).lr) for _ in range(3)]


@pytest.mark.parametrize("norm", [False, True], ids=["linear", "normalized"])
@pytest.mark.parametrize("microbatch", [None, 2, 4], ids=str)
@pytest.mark.parametrize("layout", ["rows first", "positions first", "flattened"])
def test_kfac_takes_the_same_steps_whichever_way_layers_see_the_positions(
    layout: str, microbatch: int | None, norm: bool
) -> None:
    assert chosen(layout, norm, microbatch) == pytest.approx(chosen("rows first", norm, None), rel=1e-9)


def test_a_layer_may_see_one_vector_for_all_rows() -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.of_token, self.of_inputs = nn.Parameter(torch.ones(3)), nn.Linear(3, 2), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.of_inputs(inputs) + self.of_token(self.token)
            return outputs

    optimizer = KFAC(Token(), "half_mse")
    assert optimizer.step(torch.randn(ROWS, 4), torch.randn(ROWS, 2)).loss.isfinite()


def test_a_normalization_whose_cases_cannot_be_told_is_named() -> None:
    class Halves(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            # Every second row, twice.
            outputs: Tensor = super().forward(input[::2])
            return outputs.repeat_interleave(2, dim=0)

    model = Halves(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"K-FAC cannot tell the 8 cases in what a LayerNorm makes, of shape \(4, 3\)"):
        KFAC(model, "half_mse").step(torch.randn(ROWS, 4), torch.randn(ROWS, 2))


def diagonals(layout: str, positions: list[int], attends: bool = False) -> list[float]:
    """Return a normalization's diagonal after a minibatch of each number of positions, as many rows in each."""
    model = Sequences(layout, True).double()
    if attends:
        model.attention = nn.MultiheadAttention(2, 1).requires_grad_(False)
    optimizer = KFAC(model, "half_mse", fisher="exact", lr=0.0, momentum=0.0)
    generator = torch.Generator().manual_seed(1)
    for count in positions:
        drawn = [torch.randn(ROWS, count, size, generator=generator, dtype=torch.float64) for size in (4, 2)]
        optimizer.step(*drawn)
    found: list[float] = optimizer.state[model.norm.weight]["diagonal_0"].tolist()
    return found


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("positions", [[5, ROWS], [5, ROWS, 3, ROWS], [2 * ROWS + 1, 2 * ROWS, ROWS]])
def test_as_many_positions_as_cases_are_told_by_other_minibatches(positions: list[int], attends: bool) -> None:
    wanted = diagonals("rows first", positions)
    for layout in ("rows first", "positions first"):
        assert diagonals(layout, positions, attends) == pytest.approx(wanted, rel=1e-9)


def test_as_many_positions_as_cases_come_behind_them_in_most_models() -> None:
    for positions in ([ROWS], [ROWS, ROWS], [ROWS, 5, ROWS]):
        wanted = diagonals("flattened", positions)
        assert diagonals("rows first", positions) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("positions", [[ROWS, 5], [ROWS, ROWS, 5]])
def test_positions_that_were_taken_for_cases_are_noticed(positions: list[int]) -> None:
    message = (
        r"cannot tell cases from positions in what a LayerNorm makes, of shape \(5, 8, 3\): give it no minibatches"
    )
    with pytest.raises(ValueError, match=message):
        diagonals("positions first", positions)


@pytest.mark.parametrize("layout", ["rows first", "positions first"])
def test_as_many_positions_as_cases_beside_a_layer_that_takes_positions_first_are_refused(layout: str) -> None:
    with pytest.raises(
        ValueError, match=r"cannot tell cases from positions .*begin with a minibatch of another number"
    ):
        diagonals(layout, [ROWS], attends=True)


class Turned(nn.Module):
    """Outputs (rows, 2, positions) that are not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs).transpose(1, 2)
        return outputs


@pytest.mark.parametrize("fisher", ["exact", "sampled"])
@pytest.mark.parametrize("loss", ["half_mse", lambda outputs, targets: (outputs - targets).cosh().mean()])
def test_outputs_need_not_be_contiguous(loss: Any, fisher: Any) -> None:
    inputs, targets = torch.randn(ROWS, POSITIONS, 4), torch.randn(ROWS, 2, POSITIONS)
    assert KFAC(Turned(), loss, fisher=fisher).step(inputs, targets).lr.isfinite()


@pytest.mark.parametrize("shape", [(1, ROWS, 1), (5, ROWS, 1)])
def test_targets_of_a_perceptron_that_would_be_broadcast_are_refused(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    with pytest.raises(ValueError, match="but targets of"):
        AdamQLR(model, "half_mse").step(torch.randn(ROWS, 4), torch.randn(shape))


@pytest.mark.parametrize("loss", ["cross_entropy", "half_mse"])
@pytest.mark.parametrize("outputs", ["whole", "flattened", "some"])
def test_factors_are_the_fishers_whichever_rows_the_outputs_have(outputs: str, loss: str) -> None:
    """Of a linear layer whose inputs are all equal, A ⊗ G is the Fisher, and that is the Hessian."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    inputs = torch.randn(4, dtype=torch.float64).expand(ROWS, POSITIONS, 4).clone()
    targets = torch.randn(ROWS, POSITIONS, 3, dtype=torch.float64)
    if loss == "cross_entropy":
        targets = targets.argmax(dim=2)

    def arranged(found: Tensor) -> Tensor:
        if outputs == "whole":
            return found.transpose(1, 2) if found.dim() == 3 and loss == "cross_entropy" else found
        return found.flatten(0, 1)[:: 2 if outputs == "some" else 1]

    before = model.weight.detach().clone()
    optimizer = KFAC(model, loss, fisher="exact", forward=lambda model, inputs: arranged(model(inputs)))
    optimizer.step(inputs, arranged(targets))
    state, value = optimizer.state[model.weight], resolve_loss(loss)
    hessian: Any = torch.autograd.functional.hessian(
        lambda weight: value(arranged(inputs @ weight.mT), arranged(targets)), before
    )
    assert float(state["input_factor"].trace() * state["output_factor"].trace()) == pytest.approx(
        float(torch.einsum("ijij->", hessian)), rel=1e-9
    )


def test_a_layer_that_no_row_has_reached_does_no_harm() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

        def forward(self, inputs: Tensor) -> Tensor:
            outputs = inputs.new_zeros(len(inputs), 3)
            for expert, chosen in zip(self.experts, (inputs[:, 0] < 99, inputs[:, 0] >= 99), strict=True):
                outputs = outputs.index_put((chosen.nonzero()[:, 0],), expert(inputs[chosen]))
            return outputs

    optimizer = KFAC(Experts(), "cross_entropy")
    for _ in range(2):
        info = optimizer.step(torch.randn(ROWS, 4), torch.randint(3, (ROWS,)))
    assert info.true_change < 0


def test_an_image_may_come_without_a_dimension_for_the_batch() -> None:
    def chosen(batched: bool) -> float:
        torch.manual_seed(0)
        model = nn.Conv2d(2, 3, 3).double()

        def forward(model: nn.Module, inputs: Tensor) -> Tensor:
            found: Tensor = model(inputs if batched else inputs[0])
            return found.mean(dim=(-2, -1)).view(1, 3)

        inputs = torch.randn(1, 2, 5, 5, dtype=torch.float64)
        return float(KFAC(model, "cross_entropy", fisher="exact", forward=forward).step(inputs, torch.tensor([1])).lr)

    assert chosen(batched=False) == pytest.approx(chosen(batched=True), rel=1e-12)


def test_a_loss_of_ones_own_that_is_not_finite_is_no_error_of_linear_algebra() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.logsumexp(dim=1) - outputs[:, 0]).mean()

    model = nn.Linear(5, 3)
    inputs = torch.full((ROWS, 5), float("nan"))
    assert KFAC(model, loss, on_nonfinite="skip").step(inputs, torch.zeros(ROWS)).loss.isnan()
    assert model.weight.isfinite().all()


class Routed(nn.Module):
    """A layer for all rows, and one for those whose first feature is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.some = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = (inputs[:, 0] > 0).nonzero()[:, 0]
        outputs: Tensor = self.all(inputs)
        return outputs.index_add(0, rows, self.some(inputs[rows]))


def test_pieces_that_show_a_layer_different_numbers_of_positions_are_refused() -> None:
    """Each piece's mean over positions is of its own number of them."""
    inputs, targets = torch.randn(8, 4), torch.arange(8) % 3
    inputs[:, 0] = torch.tensor([1.0] * 4 + [-1.0] * 4)
    optimizer = KFAC(Routed(), "cross_entropy", microbatch=4)
    with pytest.raises(ValueError, match=r"show Linear\(in_features=4, .* different numbers of positions a case"):
        optimizer.step(inputs, targets)
    KFAC(Routed(), "cross_entropy").step(inputs, targets)


class Ten(nn.Module):
    """Ten times what it is given."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 10 * inputs


def test_what_a_hook_makes_of_an_output_is_as_a_module_behind_the_layer() -> None:
    found = []
    for behind in (True, False):
        torch.manual_seed(0)
        layers = [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), *([Ten()] if behind else [])]
        model = nn.Sequential(*layers).double()
        if not behind:
            model[2].register_forward_hook(lambda module, inputs, outputs: 10 * outputs)
        optimizer = KFAC(model, "cross_entropy", fisher="exact")
        info = optimizer.step(torch.randn(8, 4).double(), torch.arange(8) % 3)
        found.append([info.loss, info.lr, *optimizer.state[model[2].weight].values()])
    torch.testing.assert_close(*found)
