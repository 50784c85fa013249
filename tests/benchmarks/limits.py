"""What the device can do at most, and how much of it a training step reaches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .cases import BASELINE, EAGER, SMALL_BATCH, baseline, modes, resnet, study_step
from .rows import LIMITS, Row, row_of
from .timing import Effort, Make, interleave

MATMUL, COPY = "matrix product", "copy"


class TrafficCounter(TorchDispatchMode):
    """Counts bytes, as if every kernel read its operands and wrote its results once.

    Attributes:
        bytes: Their number so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` and count what it reads and writes, which views do not."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            moved = tree_leaves((args, kwargs, result))
            self.bytes += sum(t.numel() * t.element_size() for t in moved if isinstance(t, Tensor))
        return result


def count(make: Make) -> tuple[int, int]:
    """Return floating-point operations and bytes of a step, the second one."""
    step = make()
    step()
    with FlopCounterMode(display=False) as operations, TrafficCounter() as traffic:
        step()
    return operations.get_total_flops(), traffic.bytes


def measure_limits(device: torch.device, effort: Effort, quick: bool) -> list[Row]:
    """Measure a large matrix product, a large copy and steps of ResNet-18 side by side (a perceptron if ``quick``)."""
    on_cuda = device.type == "cuda"
    case = SMALL_BATCH if quick else resnet(256 if on_cuda else 64)
    size, elements = (256, 2**20) if quick else (8192, 2**28) if on_cuda else (2048, 2**26)
    batch, mode = case.minibatch(device), modes(case, device)[-1]
    eager = {
        (BASELINE, EAGER): baseline(case, batch),
        ("adam", mode): study_step(case, "adam", batch),
        ("adamqlr", mode): study_step(case, "adamqlr", batch),
    }
    contenders: dict[tuple[str, str], Make] = {
        (MATMUL, EAGER): lambda: _product(size, device),
        (COPY, EAGER): lambda: _copy(elements, device),
        (BASELINE, EAGER): eager[BASELINE, EAGER],
        **{(key, mode): study_step(case, key, batch, mode) for key in ("adam", "adamqlr")},
    }
    blocks = interleave(contenders, effort)
    product_rate = 2 * size**3 / blocks[MATMUL, EAGER].seconds.median
    copy_rate = 2 * 4 * elements / blocks[COPY, EAGER].seconds.median
    work = {(MATMUL, EAGER): (2 * size**3, 0), (COPY, EAGER): (0, 2 * 4 * elements)}
    rows = []
    for key, timed in blocks.items():
        operations, traffic = work[key] if key in work else count(eager[key])
        row = row_of(LIMITS, case, *key).timed(timed, blocks[BASELINE, EAGER])
        if key in work:
            row.network, row.batch, row.parameters, row.ratio, row.ratio_iqr = key[0], None, None, None, None
        row.gflop, row.gbyte = operations / 1e9, traffic / 1e9
        row.matmul_fraction = operations / timed.seconds.median / product_rate
        row.memory_fraction = traffic / timed.seconds.median / copy_rate
        rows.append(row)
    return rows


def _product(size: int, device: torch.device) -> Callable[[], object]:
    one, other, result = (torch.randn(size, size, device=device) for _ in range(3))

    def product() -> None:
        # In the precision that convolutions have here: cuDNN's may be TF32.
        previous = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        torch.matmul(one, other, out=result)
        torch.backends.cuda.matmul.allow_tf32 = previous

    return product


def _copy(elements: int, device: torch.device) -> Callable[[], object]:
    source, target = (torch.ones(elements, device=device) for _ in range(2))
    return lambda: target.copy_(source)
