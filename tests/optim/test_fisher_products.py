"""Fisher quadratic forms over every pair of coordinates, against dense Fishers that are built independently."""

import copy

import pytest
import torch
from curvlinops import GGNLinearOperator
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call

from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.linearizations import ForwardPass, Linearization
from adamqlr.optim.passes.tangents import cheap_tangents

TOLERANCE = 1e-9
NETWORKS = {
    "linear": ([nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)], (3,)),
    "convolution": ([nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)], (2, 5, 5)),
    "batch normalization": (
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)],
        (1, 4, 4),
    ),
}
LOSSES = {"half_mse": nn.MSELoss, "cross_entropy": nn.CrossEntropyLoss}


def case(network: str, loss: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layers, shape = NETWORKS[network]
    model = nn.Sequential(*copy.deepcopy(layers)).double()
    inputs = torch.randn(7, *shape, dtype=torch.float64)
    targets = torch.randint(3, (7,)) if loss == "cross_entropy" else torch.randn(7, 3, dtype=torch.float64)
    return model, inputs, targets


def dense_fisher(model: nn.Module, loss: str, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return dᵢᵀ C dⱼ for all pairs of unit vectors."""
    parameters = list(model.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    directions = []
    for unit in torch.eye(size, dtype=torch.float64):
        pieces = unit.split([parameter.numel() for parameter in parameters])
        directions.append([piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)])
    resolved = resolve_loss(loss)
    with cheap_tangents(model):
        outputs = model(inputs)
    forms = Linearization(ForwardPass(outputs, resolved, parameters, targets)).curvature(directions)
    return torch.stack([torch.stack(row) for row in forms])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("network", NETWORKS)
def test_equal_to_curvlinops(network: str, loss: str) -> None:
    model, inputs, targets = case(network, loss)
    ours = dense_fisher(model, loss, inputs, targets)
    reference = GGNLinearOperator(model, LOSSES[loss](), list(model.parameters()), [(inputs, targets)])
    theirs = reference @ torch.eye(len(ours), dtype=torch.float64)
    scale = 0.5 if loss == "half_mse" else 1.0
    torch.testing.assert_close(ours, scale * theirs, rtol=TOLERANCE, atol=TOLERANCE * float(theirs.abs().max()))


@pytest.mark.parametrize("network", NETWORKS)
def test_equal_to_the_expected_outer_product_of_scores(network: str) -> None:
    """C = 1/B Σ_b Σ_k p_bk s sᵀ with the score s = ∂ log p_bk / ∂θ: the definition of the Fisher information."""
    model, inputs, targets = case(network, "cross_entropy")
    ours = dense_fisher(model, "cross_entropy", inputs, targets)
    named = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def log_probabilities(*values: Tensor) -> Tensor:
        return functional_call(model, dict(zip(named, values, strict=True)), (inputs,)).log_softmax(dim=1)

    pieces = jacobian(log_probabilities, tuple(named.values()))
    scores = torch.cat([piece.reshape(len(inputs) * 3, -1) for piece in pieces], dim=1)
    weights = log_probabilities(*named.values()).exp().flatten() / len(inputs)
    expected = scores.T @ (weights[:, None] * scores)
    torch.testing.assert_close(ours, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max()))
