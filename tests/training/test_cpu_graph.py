"""What a CPU's recorder repeats, and what it refuses."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from adamqlr.optim.numbers import HostNumbers
from adamqlr.training.cpu_graph import CpuRecorder

x, y = torch.arange(6.0).reshape(2, 3), torch.ones(3)


def in_place() -> Tensor:
    y.add_(1.0).mul_(1.5)
    return y


def through_views() -> Tensor:
    transposed = (x + y).t()
    transposed[0].zero_()
    return transposed.reshape(-1) * 2


def into_given_places() -> Tensor:
    place = torch.empty(2)
    torch.mv(x, y, out=place)
    return place


def several_results() -> Tensor:
    values, indices = (x * y).max(dim=1)
    return values + indices


def without_places() -> Tensor:
    return torch.relu(y - 1.5).expand(2, 3).contiguous() + torch.full((2, 3), 2.0)


def of_lists() -> Tensor:
    parts = [torch.zeros(3), torch.zeros(3)]
    torch._foreach_copy_(parts, [y, x[1]])
    return torch.cat(parts)


def with_numbers() -> Tensor:
    numbers = HostNumbers(torch.float32)
    (total,) = numbers.call(lambda first, second: [first / second if second > 3 else -1.0], y.sum(), y.max())
    return x * total


def drawn() -> Tensor:
    noise = torch.empty(3).normal_() + torch.multinomial(y, 3, replacement=True)
    return torch.bernoulli(noise.sigmoid())


STEPS = [
    in_place,
    through_views,
    into_given_places,
    several_results,
    without_places,
    of_lists,
    with_numbers,
    drawn,
]


def trace(prepare: Callable[[], Callable[[], Tensor]]) -> list[Tensor]:
    """Return what four steps find, what they leave, and where they leave the random numbers."""
    torch.manual_seed(0)
    y.fill_(1.0)
    step, found = prepare(), []
    for _ in range(4):
        found.append(step().clone())
        y.add_(1.0)
    return [*found, y.clone(), torch.rand(1)]


@pytest.mark.parametrize("step", STEPS)
def test_what_is_repeated_is_what_the_step_does(step: Callable[[], Tensor]) -> None:
    expected, repeated = trace(lambda: step), trace(lambda: CpuRecorder().record(step))
    for theirs, ours in zip(expected, repeated, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def reads() -> Tensor:
    y.mul_(2.0)
    return x * float(y.sum())


def masks() -> Tensor:
    y.mul_(2.0)
    return x[x > y]


def compares() -> Tensor:
    y.mul_(2.0)
    return x * torch.equal(x[0], y)


@pytest.mark.parametrize(
    ("step", "why"), [(reads, "reads numbers"), (compares, "reads numbers"), (masks, "as much as numbers say")]
)
def test_what_depends_on_numbers_goes_on_as_it_is(
    step: Callable[[], Tensor], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = trace(lambda: step)
    with caplog.at_level(logging.INFO, logger="adamqlr"):
        found = trace(lambda: CpuRecorder().record(step))
    assert why in caplog.text
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_another_threads_calls_are_not_recorded() -> None:
    numbers = HostNumbers(torch.float32)
    calls: list[float] = []

    def of_another(read: float) -> list[float]:
        calls.append(read)
        return [read + 1]

    def step() -> Tensor:
        with ThreadPoolExecutor(1) as other:
            other.submit(numbers.call, of_another, torch.tensor(1.0)).result()
        return y * 2

    replay = CpuRecorder().record(step)
    replay()
    y.fill_(3.0)
    torch.testing.assert_close(replay(), torch.full((3,), 6.0))
    assert calls == [1.0], "the step is repeated without what the other thread did meanwhile"


def test_results_lie_where_they_lay() -> None:
    replay = CpuRecorder().record(lambda: y * 2)
    assert replay().data_ptr() == replay().data_ptr() == replay().data_ptr()


@pytest.mark.parametrize("step", STEPS)
def test_autograd_takes_what_was_repeated(step: Callable[[], Tensor]) -> None:
    repeat = CpuRecorder().record(step)
    repeat()
    weight = torch.ones_like(found := repeat(), requires_grad=True)
    (weight * found).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, found)
