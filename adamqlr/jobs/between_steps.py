"""What happens between a job's steps: checkpoints at intervals, progress, and stopping on request."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.interrupts import Interrupted, StopRequest
from adamqlr.jobs.progress import Progress

_TICK_SECONDS = 0.5


class BetweenSteps:
    """Called between steps; cheap unless something is due.

    Args:
        checkpoint: Where the job's state goes.
        stop: Whether the job was asked to stop.
        interval: Seconds between checkpoints.
        progress: Where progress is shown.
    """

    def __init__(self, checkpoint: Checkpoint, stop: StopRequest, interval: float, progress: Progress) -> None:
        self._checkpoint, self._stop, self._interval, self._progress = checkpoint, stop, interval, progress
        self._saved = self._ticked = time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        """Save the job's state, due or not."""
        self._checkpoint.save(state)
        self._saved = time.monotonic()

    def __call__(
        self,
        state: Callable[[], dict[str, Any]],
        status: Callable[[], tuple[float, str]],
        off_clock: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Save the job's state and show its status where either is due.

        Args:
            state: Makes the state to save.
            status: Makes the fraction done and a few words.
            off_clock: Makes a context in which no training time passes, such as for a slow disk.

        Raises:
            Interrupted: The job was asked to stop; its state is saved.
        """
        now = time.monotonic()
        if self._stop.signum is not None:
            self._checkpoint.save(state())
            raise Interrupted(self._stop.signum)
        if now - self._ticked < _TICK_SECONDS:
            return
        self._ticked = now
        with off_clock():
            self._progress.show(*status())
            if now - self._saved >= self._interval:
                self.save(state())
