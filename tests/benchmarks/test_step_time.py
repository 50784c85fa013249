"""Step times of the study's optimizers on the study's networks, against a plain eager Adam of PyTorch (fused).

Inputs are synthetic. One thread, as in the workflow's jobs; OMP_NUM_THREADS changes that.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr.optim.registry import make_optimizer
from adamqlr.problems.models import mlp
from adamqlr.training.device import keep_freed_memory

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, int]] = {
    "Energy 8-50-1, batch 588": (lambda: mlp([8, 50, 1]), (8,), "half_mse", 588),
    "Protein 9-100-1, batch 3200": (lambda: mlp([9, 100, 1]), (9,), "half_mse", 3200),
    "Fashion-MNIST 784-50-10, batch 100": (lambda: mlp([784, 50, 10]), (784,), "cross_entropy", 100),
    "Fashion-MNIST 784-50-10, batch 400": (lambda: mlp([784, 50, 10]), (784,), "cross_entropy", 400),
    "Fashion-MNIST 784-50-10, batch 3200": (lambda: mlp([784, 50, 10]), (784,), "cross_entropy", 3200),
    "ResNet-18 at 32x32, batch 64": (lambda: _resnet(), (3, 32, 32), "cross_entropy", 64),
}
OPTIMIZERS = {
    "adamqlr": {},
    "adamqlr_hessian": {},
    "kfac": {},
    "kfac_unadaptive": {"lr": 1e-3, "momentum": 0.9, "damping": 0.1},
    "sgd_full": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4},
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _resnet() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=10)


@pytest.fixture(scope="module", autouse=True)
def _steady_machine() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()


def minibatch(shape: tuple[int, ...], loss: str, rows: int, device: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(rows, *shape, device=device)
    if loss == "half_mse":
        return inputs, torch.randn(rows, 1, device=device)
    return inputs, torch.randint(10, (rows,), device=device)


def plain_adam(model: nn.Module, loss: str, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    criterion = nn.CrossEntropyLoss() if loss == "cross_entropy" else nn.MSELoss()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        criterion(model(inputs), targets).backward()
        optimizer.step()

    return step


def measure(benchmark: Any, step: Callable[[], object], device: str, case: str) -> None:
    def synchronized() -> None:
        step()
        if device == "cuda":
            torch.cuda.synchronize()

    rounds = 15 if "ResNet" in case else 150
    benchmark.group = f"{case} ({device})"
    benchmark.pedantic(synchronized, rounds=rounds, warmup_rounds=max(3, rounds // 5))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_plain_adam(benchmark: Any, case: str, device: str) -> None:
    build, shape, loss, rows = CASES[case]
    model = build().to(device)
    measure(benchmark, plain_adam(model, loss, *minibatch(shape, loss, rows, device)), device, case)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_study_optimizer(benchmark: Any, case: str, optimizer: str, device: str) -> None:
    build, shape, loss, rows = CASES[case]
    model = build().to(device)
    batch = minibatch(shape, loss, rows, device)
    stepper = make_optimizer(optimizer, model, loss, OPTIMIZERS[optimizer])
    measure(benchmark, lambda: stepper.step(*batch), device, case)
