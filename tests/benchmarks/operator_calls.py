"""What bounds a small step of an eager program: how many of PyTorch's operators it calls."""

from collections import Counter
from typing import Any

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .cases import MEASURED, Batch, label, perceptron, study_step
from .peers.compare import one_core
from .timing import Effort, interleave

CASE = perceptron("UCI Energy", [8, 50, 1], 50)
READ = "_local_scalar_dense"


class OperatorCalls(TorchDispatchMode):
    """Counts the calls of each operator."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the call, and make it."""
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operator_calls(optimizer: str, batch: Batch) -> Counter[str]:
    """Return how often a step of one of the study's optimizers calls each operator; reading a number is no call."""
    step = study_step(CASE, optimizer, batch)()
    # The first step makes what later ones find.
    step()
    with OperatorCalls() as calls:
        step()
    del calls.counts[READ]
    return calls.counts


@click.command()
def main() -> None:
    """Print the calls of a step on 50 rows of UCI Energy, and its time in microseconds, on one thread of one core."""
    batch = CASE.minibatch(torch.device("cpu"))
    product, factor = torch.ones(50), torch.ones(50)
    contenders = {optimizer: study_step(CASE, optimizer, batch) for optimizer in MEASURED}
    with one_core():
        blocks = interleave(contenders | {"smallest": lambda: lambda: product.mul_(factor)}, Effort())
    times = {key: 1e6 * timed.seconds.median for key, timed in blocks.items()}
    click.echo(f"{CASE}; the smallest call, a product of two vectors of 50 numbers, takes {times['smallest']:.2f} µs")
    for optimizer in MEASURED:
        calls = operator_calls(optimizer, batch)
        most = ", ".join(f"{count} {name}" for name, count in calls.most_common(6))
        click.echo(f"{label(optimizer)}: {times[optimizer]:.0f} µs, {calls.total()} calls, such as {most}")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks.operator_calls")
