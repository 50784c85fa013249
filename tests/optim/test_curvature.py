"""Jacobian–vector products and quadratic forms, against PyTorch's forward mode and dense matrices."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from adamqlr.optim.passes.linearizations import ForwardPass, HessianLinearization, Linearization
from adamqlr.optim.passes.losses import CrossEntropy, Loss, SquaredError
from adamqlr.optim.passes.replay import preserved_buffers
from adamqlr.optim.passes.tangents import cheap_tangents

CASES = {
    "linear": (nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)), (6,)),
    "convolution": (
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)),
        (2, 6, 6),
    ),
    "grouped": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, dilation=2), nn.Flatten(), nn.Linear(16, 3)), (4, 6, 6)),
    "same padding": (nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.Flatten(), nn.Linear(108, 3)), (2, 6, 6)),
    "normalized": (
        nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        (2, 6, 6),
    ),
    "normalized without affine": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(64, 3)),
        (2, 6, 6),
    ),
    "normalized inputs": (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)), (6,)),
    "layer norm and embedding": (nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Sigmoid(), nn.Linear(8, 3)), (6,)),
}


def linearization(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Linearization:
    with cheap_tangents(model):
        outputs = model(inputs)
    return Linearization(ForwardPass(outputs, loss, list(model.parameters()), targets))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", CASES)
def test_products_equal_forward_mode(case: str, training: bool) -> None:
    torch.manual_seed(0)
    network, shape = CASES[case]
    model = copy.deepcopy(network).double().train(training)
    inputs, targets = torch.randn(7, *shape, dtype=torch.float64), torch.randint(3, (7,))
    parameters = dict(model.named_parameters())
    directions = [[torch.randn_like(p) for p in parameters.values()] for _ in range(2)]

    def outputs(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return functional_call(model, {**values, **buffers}, (inputs,))

    detached = {name: p.detach() for name, p in parameters.items()}
    expected = [jvp(outputs, (detached,), (dict(zip(parameters, d, strict=True)),))[1] for d in directions]
    loss = CrossEntropy()
    with preserved_buffers(model):
        local = linearization(model, loss, inputs, targets)
    for last, (direction, wanted) in enumerate(zip(directions, expected, strict=True)):
        product = local.jacobian_vector_product(direction, last=bool(last))
        torch.testing.assert_close(product, wanted, rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(loss(outputs(parameters), targets), list(parameters.values()))
    torch.testing.assert_close(list(local.gradients), list(gradients), rtol=1e-10, atol=1e-12)


def test_quadratic_forms_of_several_directions_form_a_matrix() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    parameters = list(model.parameters())
    inputs, targets = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    loss = SquaredError(0.5)
    directions = [[torch.randn_like(p) for p in parameters] for _ in range(3)]
    forms = linearization(model, loss, inputs, targets).curvature(directions)
    together = torch.stack([torch.stack(row) for row in forms])
    tangents = [linearization(model, loss, inputs, targets).jacobian_vector_product(d).flatten() for d in directions]
    expected = torch.stack([torch.stack([a @ b for b in tangents]) for a in tangents]) / targets.numel()
    torch.testing.assert_close(together, expected, rtol=1e-12, atol=1e-12)


def test_hessian_of_a_linear_model_is_its_fisher() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    parameters = list(model.parameters())
    inputs, targets = torch.randn(9, 4).double(), torch.randn(9, 2).double()
    loss = SquaredError(0.5)
    direction = [torch.randn_like(p) for p in parameters]
    fisher = linearization(model, loss, inputs, targets).curvature([direction])[0][0]
    passed = ForwardPass(model(inputs), loss, parameters, targets)
    hessian = HessianLinearization(passed).curvature([direction])[0][0]
    assert float(hessian) == pytest.approx(float(fisher), rel=1e-12)


def test_batch_normalization_needs_more_than_one_value_a_channel() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="more than one value per channel"):
        linearization(model, SquaredError(0.5), torch.zeros(1, 4), torch.zeros(1, 4))
