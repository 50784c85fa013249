"""Signals that ask a job to write a checkpoint and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """The job was asked to stop, and has written its checkpoint.

    Attributes:
        signum: The signal that asked.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the checkpoint is written")
        self.signum = signum


class StopRequest:
    """Whether a signal has asked the job to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        # Whoever presses Ctrl-C twice does not want to wait for the checkpoint.
        if signum == self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Collect SIGUSR2, SIGTERM and Ctrl-C within the block instead of dying of them.

    The work inside looks at the request where it can write a checkpoint. Only the main thread may call this.
    """
    request = StopRequest()
    previous = {signum: signal.signal(signum, request._note) for signum in STOP_SIGNALS}
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
