"""Training time: what steps take, their choice of rows included, without evaluation, checkpoints or reading files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SYNCHRONIZE_SECONDS = 0.05


class TrainingClock:
    """A stopwatch for work on a device, which waits for the device when it is read exactly.

    Args:
        device: Where the work runs.
        elapsed: Seconds already on the clock.
    """

    def __init__(self, device: torch.device, elapsed: float = 0.0) -> None:
        self._device = device
        self._elapsed = elapsed
        self._started: float | None = None
        self._synchronized = 0.0

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._synchronized = time.perf_counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds within the block."""
        self._wait()
        self._started = time.perf_counter()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the seconds within the block."""
        was_running = self._started is not None
        self._stop()
        try:
            yield
        finally:
            if was_running:
                self._wait()
                self._started = time.perf_counter()

    def _stop(self) -> None:
        if self._started is not None:
            self._wait()
            self._elapsed += time.perf_counter() - self._started
            self._started = None

    def read(self) -> float:
        """Return the seconds so far; while running, the device may be up to 50 ms of queued work behind."""
        if self._started is None:
            return self._elapsed
        if time.perf_counter() - self._synchronized > _SYNCHRONIZE_SECONDS:
            self._wait()
        return self._elapsed + time.perf_counter() - self._started
