"""What is measured: the study's networks and optimizers, on synthetic minibatches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from adamqlr.optim.passes.perceptron import find_layers
from adamqlr.problems.models import mlp
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.capture import fastest_step
from adamqlr.training.optimizers import make_optimizer

from .timing import Make

EAGER, CAPTURED, JAX = "eager", "captured", "jax"
# A step is captured in one of its first calls; none of them is timed.
CALLS_BEFORE_REPLAY = 5

BASELINE = "torch_adam"
# The options keep training tame; they change no step's cost. The study's other keys differ from these in options only.
MEASURED: dict[str, dict[str, Any]] = {
    "sgd_full": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4},
    "adam": {"lr": 1e-3},
    "baydin_sgd": {"lr": 1e-3, "hypergradient_lr": 1e-6},
    "adamqlr": {},
    "adamqlr_hessian": {},
    "kfac": {},
    "kfac_unadaptive": {"lr": 1e-3, "momentum": 0.9, "damping": 0.1},
}


def label(optimizer: str) -> str:
    """Return an optimizer's name in tables and figures."""
    return "PyTorch's Adam" if optimizer == BASELINE else OPTIMIZERS[optimizer].label


Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """A network and the size of its minibatches.

    Attributes:
        name: The network's name.
        build: Makes the network.
        row: Shape of an input.
        loss: ``half_mse`` over one output, or ``cross_entropy`` over ten.
        batch: Rows of a minibatch.
    """

    name: str
    build: Callable[[], nn.Module]
    row: tuple[int, ...]
    loss: str
    batch: int

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}"

    @property
    def parameters(self) -> int:
        """The number of the network's parameters."""
        return sum(parameter.numel() for parameter in self.build().parameters())

    def minibatch(self, device: torch.device, members: tuple[int, ...] = ()) -> Batch:
        """Return made-up inputs and targets, for each of ``members`` networks where there are several."""
        generator = torch.Generator().manual_seed(0)
        rows = (*members, self.batch)
        inputs = torch.randn(*rows, *self.row, generator=generator)
        if self.loss == "half_mse":
            targets = torch.randn(*rows, 1, generator=generator)
        else:
            targets = torch.randint(10, rows, generator=generator)
        return inputs.to(device), targets.to(device)


def perceptron(name: str, widths: Sequence[int], batch: int) -> Case:
    """Return a case of a perceptron: regression where it has one output."""
    loss = "half_mse" if widths[-1] == 1 else "cross_entropy"
    name = f"{name} {'-'.join(map(str, widths))}".strip()
    return Case(name, lambda: mlp(widths), (widths[0],), loss, batch)


def resnet(batch: int) -> Case:
    """Return a case of ResNet-18 on images of the size of CIFAR-10's."""
    return Case("ResNet-18 at 32x32", lambda: resnet18(num_classes=10), (3, 32, 32), "cross_entropy", batch)


ENERGY = perceptron("UCI Energy", [8, 50, 1], 588)
SMALL_BATCH = perceptron("Fashion-MNIST", [784, 50, 10], 100)


def study_cases(device: torch.device, quick: bool) -> list[Case]:
    """Return the study's networks with batch sizes that it trains them with."""
    if quick:
        return [ENERGY, SMALL_BATCH]
    perceptrons = [
        ENERGY,
        perceptron("UCI Protein", [9, 100, 1], 3200),
        *(perceptron("Fashion-MNIST", [784, 50, 10], batch) for batch in (100, 400, 3200)),
    ]
    return perceptrons + [resnet(batch) for batch in ((64, 256) if device.type == "cuda" else (64,))]


def baseline(case: Case, batch: Batch) -> Make:
    """Return what makes a step of the usual loop with PyTorch's fused Adam."""
    inputs, targets = batch

    def make() -> Callable[[], object]:
        torch.manual_seed(0)
        model = case.build().to(inputs.device)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        criterion = nn.CrossEntropyLoss() if case.loss == "cross_entropy" else nn.MSELoss()

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            criterion(model(inputs), targets).backward()
            optimizer.step()

        return step

    return make


def study_step(
    case: Case, optimizer: str, batch: Batch, mode: str = EAGER, build: Callable[[], nn.Module] | None = None
) -> Make:
    """Return what makes a step of one of the study's optimizers, for the case's network if ``build`` makes no other."""

    def make() -> Callable[[], object]:
        torch.manual_seed(0)
        model = (build or case.build)().to(batch[0].device)
        one = make_optimizer(OPTIMIZERS[optimizer], model, case.loss, MEASURED[optimizer]).step
        step = fastest_step(lambda: one(*batch), model, batch[0].device, mode == CAPTURED)
        for _ in range(CALLS_BEFORE_REPLAY if mode == CAPTURED else 0):
            step()
        return step

    return make


def modes(case: Case, device: torch.device) -> tuple[str, ...]:
    """Return how steps can be run: captured as well, where training captures them."""
    captured = device.type == "cuda" or find_layers(case.build()) is not None
    return (EAGER, CAPTURED) if captured else (EAGER,)
