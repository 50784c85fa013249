"""Several processes that share one device: a small network alone leaves most of a GPU idle."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from adamqlr.errors import UserError
from adamqlr.jobs.interrupts import STOP_SIGNALS, Interrupted, StopRequest, stop_on_signals
from adamqlr.logs import configure_logging

_LOOK_SECONDS = 0.2

Work = Callable[[int, StopRequest], None]


def process_count(requested: int | None, device: torch.device, runs_per_gpu: int, tasks: int) -> int:
    """Return how many processes share the device: what is asked for, else ``runs_per_gpu`` on a GPU and 1 elsewhere."""
    return min(tasks, requested or (runs_per_gpu if device.type == "cuda" else 1))


def run_together(work: Work, count: int, stop: StopRequest) -> None:
    """Run ``work(0, …)`` to ``work(count − 1, …)`` at once, each in a process of its own.

    Args:
        work: Picklable; gets its number and its process's own stop request.
        count: Number of processes.
        stop: The caller's stop request; it is passed on.

    Raises:
        UserError: A process found something that the user can mend; the others have written their checkpoints.
        Interrupted: The job was asked to stop, and every process has written its checkpoint.
        RuntimeError: A process has failed; its traceback is on standard error.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # Sums over another number of threads round differently.
    threads = torch.get_num_threads()
    processes = [context.Process(target=_child, args=(work, index, threads, sender)) for index in range(count)]
    with _signals_blocked():
        for process in processes:
            process.start()
    try:
        _wait_for(processes, stop)
    finally:
        _ask_to_stop(processes)
        for process in processes:
            process.join()
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes and stop.signum is not None:
        raise Interrupted(stop.signum)
    if receiver.poll():
        raise UserError(receiver.recv())
    if codes:
        raise RuntimeError(f"{len(codes)} of {count} processes ended with exit codes {codes}")


def _wait_for(processes: Sequence[SpawnProcess], stop: StopRequest) -> None:
    """Return when all processes have ended, or one has failed, or the job is asked to stop."""
    while alive := [process for process in processes if process.exitcode is None]:
        wait([process.sentinel for process in alive], timeout=_LOOK_SECONDS)
        if stop.signum is not None or any(process.exitcode for process in processes):
            return


def _ask_to_stop(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()


def _child(work: Work, index: int, threads: int, problems: Connection) -> None:
    configure_logging()
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        with stop_on_signals() as stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            work(index, stop)
    except Interrupted as error:
        sys.exit(128 + error.signum)
    except UserError as error:
        problems.send(str(error))
        sys.exit(2)


def _stop_with_parent() -> None:
    """Ask this process to write its checkpoint and stop when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold stop signals back, here and in processes that are started within, until those have their handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
