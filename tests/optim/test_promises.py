"""What a step costs: no waiting for the device, and one vector more than Adam keeps."""

import contextlib
import gc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim import numbers

READS = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.masked_select.default"}


class Reads(TorchDispatchMode):
    """Remembers operations for whose result the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in READS:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(3, 3))


MAKERS: dict[str, Callable[..., Any]] = {
    "AdamQLR": AdamQLR,
    "QLR over the gradient": lambda model, loss, **options: QLR(model, loss, "gradient", momentum=None, **options),
    "QLR over SGD": lambda model, loss, **options: QLR(
        model, loss, torch.optim.SGD(model.parameters(), lr=0.1), **options
    ),
    "K-FAC": KFAC,
}


@pytest.mark.parametrize("options", [{}, {"on_nonfinite": "skip"}, {"microbatch": 5}], ids=str)
@pytest.mark.parametrize("build", [perceptron, convolutional])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_step_reads_nothing_on_the_host(
    maker: str, build: Callable[[], nn.Module], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Elsewhere than on a CPU numbers are tensors.
    monkeypatch.setattr(numbers, "at_hand", lambda tensor: False)
    torch.manual_seed(0)
    optimizer = MAKERS[maker](build(), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), **options)
    batch = torch.randn(12, 8), torch.randint(3, (12,))
    optimizer.step(*batch)
    with Reads() as reads:
        optimizer.step(*batch)
        assert not reads.found
        float(optimizer.damping)
    assert reads.found, "reading is noticed"


@pytest.mark.gpu
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("policy", ["propagate", "skip"])
def test_a_step_on_cuda_never_waits_for_the_device(maker: str, policy: str) -> None:
    optimizer = MAKERS[maker](perceptron().cuda(), "cross_entropy", on_nonfinite=policy)
    batch = torch.randn(12, 8).cuda(), torch.randint(3, (12,)).cuda()
    optimizer.step(*batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        info = optimizer.step(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(info.loss)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of tensors by address."""
    found = {}
    for tensor in tensors:
        # Some releases of PyTorch leave undefined tensors behind, and its compiler others: they have no storage.
        with contextlib.suppress(RuntimeError):
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return found


def kept(train: Callable[[nn.Module, Tensor, Tensor], Any]) -> float:
    """Return the memory that a model and its optimizer keep after a step, in vectors of the model's size."""
    gc.collect()
    before = storages(t for t in gc.get_objects() if issubclass(type(t), Tensor))
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    optimizer = train(model, torch.randn(4, 300), torch.randint(10, (4,)))
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor)]
    tensors += [p.grad for group in optimizer.param_groups for p in group["params"]]
    size = sum(p.numel() for p in model.parameters())
    return sum(bytes_ for pointer, bytes_ in storages(tensors).items() if pointer not in before) / (4 * size)


def with_adam(model: nn.Module, inputs: Tensor, targets: Tensor) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters())
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    return optimizer


def with_adamqlr(model: nn.Module, inputs: Tensor, targets: Tensor) -> torch.optim.Optimizer:
    optimizer = AdamQLR(model, "cross_entropy")
    optimizer.step(inputs, targets)
    return optimizer


def test_adamqlr_keeps_one_vector_more_than_adam() -> None:
    assert kept(with_adam) == pytest.approx(4, abs=0.1)
    assert kept(with_adamqlr) == pytest.approx(5, abs=0.1)
