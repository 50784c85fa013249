"""What runs on the node: a job's command, and what becomes of the signals that Slurm sends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

import submitit
from submitit.core.utils import DelayedSubmission

from snakemake_executor_plugin_submitit.resources import signal_seconds
from snakemake_executor_plugin_submitit.results import write_result
from snakemake_executor_plugin_submitit.trouble import find_trouble
from snakemake_executor_plugin_submitit.usage import ExitCode, Meter

# Slurm kills what is still there 30 s after SIGTERM; submitit's local controller, 1 s after SIGINT.
_GRACE_SECONDS = {signal.SIGTERM: 20.0, signal.SIGINT: 0.5}
_CHECKPOINT_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_NO_LIMIT_MINUTES = 1e9
# A job's command starts so much later than the job, at most.
_START_SECONDS = 15.0
# Slurm may announce the time limit so much earlier than it was asked to, and end the job so much later than it should.
_EARLY_SECONDS, _LATE_SECONDS = 60.0, 60.0

LIMIT_REACHED = "it has reached its time limit"
"""What a job leaves as its result that its limit has ended, without a checkpoint."""


class JobCommand:
    """A shell command as a submitit job; calling it returns the command's exit code, an :class:`ExitCode`.

    On SIGUSR2 (preemption, or the time limit is near) the command is asked to write its checkpoint and stop, and the
    job is requeued. On SIGTERM (``scancel``, ``scontrol requeue``) the command is stopped and no result is left, so
    that the head process sees that the job has ended, unless Slurm itself starts it again. What the time limit ends
    says so itself: Slurm may have forgotten the job by the time it is asked.

    Args:
        command: Run by bash, in a session of its own.
        minutes: The job's time limit.
        taken: What it took before it was requeued; None in the beginning.
    """

    def __init__(self, command: str, minutes: float = _NO_LIMIT_MINUTES, taken: ExitCode | None = None) -> None:
        self.command = command
        self.minutes = minutes
        self.taken = taken

    def __call__(self) -> int:
        """Run the command."""
        self._started = time.monotonic()
        self._is_requeued = False
        self._child = subprocess.Popen(
            ["/bin/bash", "-c", self.command], start_new_session=True, preexec_fn=_ignore_checkpoint_signal
        )
        self._meter = Meter(self._child.pid, self.taken)
        if os.environ.get("SUBMITIT_EXECUTOR") in ("slurm", "local"):
            for signum in _GRACE_SECONDS:
                signal.signal(signum, self._stop)
        try:
            # Popen.wait would hold a lock that the signal handlers' poll needs.
            while (code := self._child.poll()) is None:
                self._meter.look()
                time.sleep(_LOOK_SECONDS)
            if code != 0 and (trouble := find_trouble()):
                print(trouble, file=sys.stderr, flush=True)
            return self._meter.exit_code(code)
        finally:
            self._kill()

    def checkpoint(self) -> DelayedSubmission:
        """Let the command write its checkpoint.

        What succeeds meanwhile has succeeded. A command that does not heed the signal may use all of its time; without
        a checkpoint, it is not started again to reach the same limit.

        Returns:
            What is to run when the job is started again.
        """
        left = self._seconds_left()
        near_limit = left < signal_seconds(self.minutes) + _EARLY_SECONDS + _START_SECONDS
        code = self._end(signal.SIGUSR2, max(_CHECKPOINT_SECONDS, left + _LATE_SECONDS if near_limit else 0))
        if code == 0:
            _finish("success", self._meter.exit_code(code))
        if code is None and near_limit:
            _finish("error", LIMIT_REACHED)
        self._is_requeued = True
        return DelayedSubmission(JobCommand(self.command, self.minutes, self._meter.exit_code(code or 0)))

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if self._seconds_left() < _START_SECONDS and not self._is_requeued:
            # First of all: Slurm may give it no time for more.
            _leave_result("error", LIMIT_REACHED)
        self._end(signal.SIGTERM, _GRACE_SECONDS[signal.Signals(signum)])
        # An ordinary exit would leave a result, which the head process takes for the job's end.
        os._exit(128 + signum)

    def _seconds_left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self._started)

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


def _finish(kind: str, value: object) -> NoReturn:
    # From here on, SIGTERM must not take a success back.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _leave_result(kind, value)
    os._exit(0 if kind == "success" else 1)


def _leave_result(kind: str, value: object) -> None:
    write_result(submitit.JobEnvironment().paths.result_pickle, kind, value)


def _signal_group(group: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signum)


def _ignore_checkpoint_signal() -> None:
    # Slurm sends it to every process of the job: shells and Snakemake would die of it before a training process has
    # installed its handler, and after.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
