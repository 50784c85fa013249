"""Timing side by side: blocks of steps of every contender in turn, so that a machine's moods meet them all alike."""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.benchmark import Timer

Make = Callable[[], Callable[[], object]]
# Takes a number of steps and returns the seconds that each of so many took, wherever they were taken.
TimeBlock = Callable[[int], float]
Key = TypeVar("Key", bound=Hashable)
MIN_BLOCKS = 3


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: Blocks of each contender.
        block_seconds: Aimed at for a block.
        block_steps: The most steps in a block: all of them are from the start of training, before a loss can vanish
            or its numbers become subnormal, which computers are slow with.
        patience: A contender that has taken so many seconds, warm-up included, is left out of further rounds once it
            has three blocks.
    """

    rounds: int = 12
    block_seconds: float = 0.08
    block_steps: int = 100
    patience: float = 8.0


QUICK = Effort(rounds=3, block_seconds=0.01, block_steps=20, patience=1.0)


class Spread(NamedTuple):
    """Median and interquartile range over blocks."""

    median: float
    iqr: float


class Blocks:
    """Seconds a step, the mean of each block.

    Args:
        seconds: One number a round, NaN where the contender was left out.
    """

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = np.array(seconds)

    def __len__(self) -> int:
        return int(np.isfinite(self._seconds).sum())

    @property
    def seconds(self) -> Spread:
        """Seconds a step."""
        return _spread(self._seconds)

    def ratio_to(self, other: "Blocks") -> Spread:
        """Return how many times the other's step this one takes, by blocks of the same round."""
        return _spread(self._seconds / other._seconds)


def _spread(values: np.ndarray) -> Spread:
    lower, median, upper = np.nanpercentile(values, [25, 50, 75])
    return Spread(float(median), float(upper - lower))


def interleave(contenders: Mapping[Key, Make], effort: Effort) -> dict[Key, Blocks]:
    """Time all contenders in alternating blocks.

    Every block starts from a new network, after a warm-up. PyTorch's Timer waits for the device before and after.

    Args:
        contenders: For each, a function that makes its step.
        effort: How much to measure.
    """
    return interleave_blocks({key: time_here(make) for key, make in contenders.items()}, effort)


def time_here(make: Make) -> TimeBlock:
    """Return what times blocks in this process."""
    return lambda steps: _timer(make).timeit(steps).median


def interleave_blocks(contenders: Mapping[Key, TimeBlock], effort: Effort) -> dict[Key, Blocks]:
    """Time all contenders in alternating blocks, each of which starts from a new network after a warm-up.

    Args:
        contenders: For each, what times a block of its steps.
        effort: How much to measure.
    """
    # One step in the first round; it tells how many there are in the others.
    steps = dict.fromkeys(contenders, 1)
    seconds: dict[Key, list[float]] = {key: [] for key in contenders}
    spent = dict.fromkeys(contenders, 0.0)
    for round_ in range(effort.rounds):
        # There and back again: no contender always follows the same one.
        for key in list(contenders) if round_ % 2 == 0 else reversed(list(contenders)):
            if round_ >= MIN_BLOCKS and spent[key] > effort.patience:
                seconds[key].append(float("nan"))
                continue
            started = time.perf_counter()
            block = contenders[key](steps[key])
            spent[key] += time.perf_counter() - started
            seconds[key].append(block)
            if round_ == 0:
                steps[key] = max(1, min(effort.block_steps, round(effort.block_seconds / block)))
    return {key: Blocks(blocks) for key, blocks in seconds.items()}


def _timer(make: Make) -> Timer:
    return Timer("step()", globals={"step": make()}, num_threads=torch.get_num_threads())
