"""AdamQLR against its equations with dense matrices, which are built from PyTorch's own operations alone."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn import functional

from adamqlr import AdamQLR

STEPS = 20
TOLERANCE = 1e-9


def mlp(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))


def perceptron(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, outputs))


def convolutional(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, outputs),
    )


NETWORKS = {"mlp": (mlp, (4,)), "perceptron": (perceptron, (4,)), "convolutional": (convolutional, (2, 6, 6))}
LOSSES = {
    "half_mse": lambda outputs, targets: 0.5 * functional.mse_loss(outputs, targets),
    "cross_entropy": functional.cross_entropy,
}


@dataclass
class DenseAdamQLR:
    """The paper's algorithm on a flat parameter vector θ with an explicit curvature matrix C."""

    model: nn.Module
    loss: str
    curvature: str
    damping: float = 1e-3
    damping_decrease: float = 0.5
    damping_increase: float = 2.0
    lr_clipping: float | None = None
    lr_rescaling: float = 1.0
    weight_decay: float = 0.0
    eps: float = 1e-8
    steps: int = 0
    moments: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.model)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # In training mode the statistics are the batch's; keeping track of them is not part of the algorithm.
                module.track_running_stats, module.running_mean, module.running_var = False, None, None
        self.theta = nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()
        self.moments = [torch.zeros_like(self.theta), torch.zeros_like(self.theta)]

    def outputs(self, theta: Tensor, inputs: Tensor) -> Tensor:
        named, offset = {}, 0
        for name, parameter in self.model.named_parameters():
            named[name] = theta[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        return functional_call(self.model, named, (inputs,))

    def value(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return LOSSES[self.loss](self.outputs(theta, inputs), targets)

    def matrix(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self.curvature == "hessian":
            return hessian(lambda theta: self.value(theta, inputs, targets), self.theta, vectorize=True)
        jac = jacobian(lambda theta: self.outputs(theta, inputs), self.theta, vectorize=True).flatten(0, -2)
        outputs = self.outputs(self.theta, inputs).detach()
        middle = hessian(lambda out: LOSSES[self.loss](out.view_as(outputs), targets), outputs.flatten())
        return jac.T @ middle @ jac

    def step(self, inputs: Tensor, targets: Tensor) -> dict[str, float]:
        theta = self.theta.clone().requires_grad_()
        loss = self.value(theta, inputs, targets)
        (gradient,) = torch.autograd.grad(loss, theta)
        loss = loss.detach()
        self.steps += 1
        self.moments[0] = 0.9 * self.moments[0] + 0.1 * gradient
        self.moments[1] = 0.999 * self.moments[1] + 0.001 * gradient**2
        first, second = self.moments[0] / (1 - 0.9**self.steps), self.moments[1] / (1 - 0.999**self.steps)
        direction = first / (second.sqrt() + self.eps)
        damped = self.matrix(inputs, targets) + self.damping * torch.eye(len(direction), dtype=direction.dtype)
        curvature = direction @ damped @ direction
        lr = gradient @ direction / curvature
        if self.lr_clipping is not None:
            lr = lr.clamp(-self.lr_clipping, self.lr_clipping)
        lr = lr * self.lr_rescaling
        model_change = 0.5 * lr**2 * curvature - lr * (gradient @ direction)
        true_change = self.value(self.theta - lr * direction, inputs, targets) - loss
        rho = true_change / model_change
        self.theta = self.theta - lr * direction - self.weight_decay * self.theta
        if rho > 0.75:
            self.damping *= self.damping_decrease
        elif rho < 0.25:
            self.damping *= self.damping_increase
        self.damping = max(self.damping, 1e-8)
        return {
            "loss": float(loss),
            "lr": float(lr),
            "curvature": float(curvature),
            "grad_dot_direction": float(gradient @ direction),
            "damping": self.damping,
            "rho": float(rho),
            "model_change": float(model_change),
            "true_change": float(true_change),
        }


def task(shape: tuple[int, ...], loss: str, outputs: int) -> tuple[Tensor, Tensor]:
    """Draw rows of a task that can be learned but not solved: otherwise steps amplify rounding errors as they go."""
    inputs = torch.randn(96, *shape, dtype=torch.float64)
    features = inputs.flatten(1)[:, :outputs].sin() + torch.randn(96, outputs, dtype=torch.float64)
    return inputs, features.argmax(dim=1) if loss == "cross_entropy" else features


def assert_follows(network: str, loss: str, outputs: int, curvature: str, **options: Any) -> None:
    torch.manual_seed(3)
    build, shape = NETWORKS[network]
    model = build(outputs).double()
    dense = DenseAdamQLR(model, loss, curvature, **options)
    optimizer = AdamQLR(model, loss, curvature=curvature, **options)
    inputs_of_all, targets_of_all = task(shape, loss, outputs)
    for step in range(STEPS):
        rows = torch.randperm(len(inputs_of_all))[:64]
        inputs, targets = inputs_of_all[rows], targets_of_all[rows]
        expected, info = dense.step(inputs, targets), optimizer.step(inputs, targets)
        for name, value in expected.items():
            assert float(getattr(info, name)) == pytest.approx(value, rel=TOLERANCE), (step, name)
        theta = nn.utils.parameters_to_vector(model.parameters()).detach()
        torch.testing.assert_close(theta, dense.theta, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
@pytest.mark.parametrize(("loss", "outputs"), [("half_mse", 1), ("half_mse", 3), ("cross_entropy", 4)])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_quantity_equals_dense_matrices(network: str, loss: str, outputs: int, curvature: str) -> None:
    # The Hessian is indefinite: with little damping c comes close to zero, and steps amplify rounding errors.
    assert_follows(network, loss, outputs, curvature, damping=1e-3 if curvature == "fisher" else 0.3)


@pytest.mark.parametrize(
    "options",
    [
        {"lr_clipping": 1e-2},
        {"lr_rescaling": 0.5},
        {"lr_clipping": 5e-3, "lr_rescaling": 2.0},
        {"weight_decay": 1e-2},
        {"damping": 0.3, "damping_decrease": 0.8, "damping_increase": 3.0},
        {"eps": 1e-2},
    ],
    ids=str,
)
@pytest.mark.parametrize("network", ["mlp", "perceptron"])
def test_options_equal_dense_matrices(network: str, options: dict[str, float]) -> None:
    assert_follows(network, "cross_entropy", 4, "fisher", **options)
