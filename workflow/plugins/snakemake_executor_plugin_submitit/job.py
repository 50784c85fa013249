"""What runs on the node: a job's command, and what becomes of the signals that Slurm sends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import FrameType

from submitit.core.utils import DelayedSubmission

from snakemake_executor_plugin_submitit.resources import signal_seconds
from snakemake_executor_plugin_submitit.trouble import find_trouble
from snakemake_executor_plugin_submitit.usage import Meter

# Slurm kills what is still there 30 s after SIGTERM; submitit's local controller, 1 s after SIGINT.
_GRACE_SECONDS = {signal.SIGTERM: 20.0, signal.SIGINT: 0.5}
_CHECKPOINT_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_NO_LIMIT_MINUTES = 1e9
# Slurm may announce the time limit so much earlier than it was asked to.
_EARLY_SECONDS = 65.0


class JobCommand:
    """A shell command as a submitit job; calling it returns the command's exit code, an :class:`ExitCode`.

    On SIGUSR2 (preemption, or the time limit is near) the command is asked to write its checkpoint and stop, and the
    job is requeued. On SIGTERM (``scancel``, ``scontrol requeue``) the command is stopped and no result is left, so
    that the head process sees that the job has ended, unless Slurm itself starts it again.

    Args:
        command: Run by bash, in a session of its own.
        done: Whether it has already succeeded, just as its job was about to be requeued.
        minutes: The job's time limit.
    """

    def __init__(self, command: str, done: bool = False, minutes: float = _NO_LIMIT_MINUTES) -> None:
        self.command = command
        self.done = done
        self.minutes = minutes

    def __call__(self) -> int:
        """Run the command."""
        if self.done:
            return 0
        self._started = time.monotonic()
        self._child = subprocess.Popen(
            ["/bin/bash", "-c", self.command], start_new_session=True, preexec_fn=_ignore_checkpoint_signal
        )
        meter = Meter(self._child.pid)
        if os.environ.get("SUBMITIT_EXECUTOR") in ("slurm", "local"):
            for signum in _GRACE_SECONDS:
                signal.signal(signum, self._stop)
        try:
            # Popen.wait would hold a lock that the signal handlers' poll needs.
            while (code := self._child.poll()) is None:
                meter.look()
                time.sleep(_LOOK_SECONDS)
            if code != 0 and (trouble := find_trouble()):
                print(trouble, file=sys.stderr, flush=True)
            return meter.exit_code(code)
        finally:
            self._kill()

    def checkpoint(self) -> DelayedSubmission | None:
        """Let the command write its checkpoint.

        Returns:
            What is to run when the job is started again; None where the time limit is near and the command has not
            heeded the signal: without a checkpoint, it would only reach the same limit again.
        """
        left = 60 * self.minutes - (time.monotonic() - self._started)
        near_limit = left < signal_seconds(self.minutes) + _EARLY_SECONDS
        code = self._end(signal.SIGUSR2, _CHECKPOINT_SECONDS)
        if code is None and near_limit:
            return None
        return DelayedSubmission(JobCommand(self.command, done=code == 0, minutes=self.minutes))

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._end(signal.SIGTERM, _GRACE_SECONDS[signal.Signals(signum)])
        # An ordinary exit would leave a result, which the head process takes for the job's end.
        os._exit(128 + signum)

    def _end(self, signum: signal.Signals, seconds: float) -> int | None:
        """Send a signal to the command's processes; kill them if they are there ``seconds`` later."""
        deadline = time.monotonic() + seconds
        _signal_group(self._child.pid, signum)
        while self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        code = self._child.poll()
        self._kill()
        return code

    def _kill(self) -> None:
        _signal_group(self._child.pid, signal.SIGKILL)
        self._child.poll()


def _signal_group(group: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signum)


def _ignore_checkpoint_signal() -> None:
    # Slurm sends it to every process of the job: shells and Snakemake would die of it before a training process has
    # installed its handler, and after.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
