"""Updates as they are measured: against dense matrices, against what the heuristics know, and without a trace."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from adamqlr import AdamQLR
from adamqlr.optim.adam import Adam
from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.training.updates import UpdateProbe


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def dropout() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3))


def minibatch(model: nn.Sequential) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(7, 1, 4, 4) if isinstance(model[0], nn.Conv2d) else torch.randn(7, 4)
    return inputs, torch.randint(3, (7,))


def dense_fisher(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return E[Jᵀ H J] in double precision, from the whole Jacobian."""
    parameters = dict(model.named_parameters())
    outputs = model(inputs)
    rows = [torch.autograd.grad(value, list(parameters.values()), retain_graph=True) for value in outputs.flatten()]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).double()
    jacobian = jacobian.unflatten(0, outputs.shape)
    p = outputs.detach().double().softmax(-1)
    hessian = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    return torch.einsum("bki,bkl,blj->ij", jacobian, hessian, jacobian) / len(inputs)


@pytest.mark.parametrize("make", [perceptron, convolutions])
def test_sharpness_is_that_of_the_dense_fisher_along_the_update(make: Callable[[], nn.Sequential]) -> None:
    torch.manual_seed(0)
    model = make()
    inputs, targets = minibatch(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = UpdateProbe(model, resolve_loss("cross_entropy"))
    probe.remember()
    fisher, before = dense_fisher(model, inputs), nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    norm, sharpness = probe.measure(inputs, targets)
    update = (nn.utils.parameters_to_vector(model.parameters()).detach() - before).double()
    assert float(norm) == pytest.approx(float(update.norm()), rel=1e-5)
    assert float(sharpness) == pytest.approx(float(update @ fisher @ update / update.square().sum()), rel=1e-4)


@pytest.mark.parametrize("make", [perceptron, convolutions, dropout])
def test_sharpness_is_the_curvature_that_the_heuristics_found(make: Callable[[], nn.Sequential]) -> None:
    torch.manual_seed(0)
    model = make()
    inputs, targets = minibatch(model)
    optimizer = AdamQLR(model, "cross_entropy", damping=0.0, adapt_damping=False)
    probe = UpdateProbe(model, resolve_loss("cross_entropy"))
    for _ in range(3):
        probe.remember()
        info = optimizer.step(inputs, targets)
        norm, sharpness = probe.measure(inputs, targets)
        assert float(sharpness) == pytest.approx(float(info.curvature * (info.lr / norm) ** 2), rel=1e-3)


def test_networks_side_by_side_have_a_sharpness_each() -> None:
    torch.manual_seed(0)
    networks = [perceptron(), perceptron()]
    inputs, targets = torch.randn(2, 7, 4), torch.randint(3, (2, 7))
    pack = PerceptronPack(networks)
    rates, loss = (1e-3, 0.1), resolve_loss("cross_entropy")

    def measured(model: nn.Module, lr: float | tuple[float, ...], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        optimizer, probe = Adam(model, loss, lr=lr), UpdateProbe(model, loss)
        probe.remember()
        optimizer.step(x, y)
        return probe.measure(x, y)

    together = measured(pack, rates, inputs, targets)
    alone = [measured(*each) for each in zip(networks, rates, inputs, targets, strict=True)]
    for found, each in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(each), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", [perceptron, convolutions, dropout])
def test_a_run_that_is_measured_is_the_run_that_is_not(make: Callable[[], nn.Sequential]) -> None:
    def trained(measure: bool) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        model = make()
        batch = minibatch(model)
        optimizer, probe = Adam(model, "cross_entropy"), UpdateProbe(model, resolve_loss("cross_entropy"))
        for _ in range(4):
            probe.remember()
            optimizer.step(*batch)
            if measure:
                probe.measure(*batch)
        return nn.utils.parameters_to_vector(model.parameters()), [*model.buffers(), torch.rand(3)]

    (theta, state), (expected, expected_state) = trained(True), trained(False)
    assert torch.equal(theta, expected)
    assert all(map(torch.equal, state, expected_state))


def test_where_nothing_moved_sharpness_is_not_a_number() -> None:
    model = perceptron()
    probe = UpdateProbe(model, resolve_loss("cross_entropy"))
    probe.remember()
    norm, sharpness = probe.measure(*minibatch(model))
    assert float(norm) == 0
    assert sharpness.isnan()
