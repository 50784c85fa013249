"""What runs on the node: exit codes, and what becomes of the signals that Slurm sends."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from snakemake_executor_plugin_submitit.clusters import JobState
from snakemake_executor_plugin_submitit.endings import Ending, ending_of
from snakemake_executor_plugin_submitit.job import JobCommand
from snakemake_executor_plugin_submitit.results import JobFiles

IGNORES = "trap '' USR2; touch started"


def job(command: str, folder: Path, minutes: float = 60, patience: float = 60, then: str = "") -> subprocess.Popen[str]:
    """Start a command as submitit does, where its limit passes 0.3 s late and checkpoints have ``patience`` seconds.

    ``then`` is what happens once it has been asked for one.
    """
    program = f"""
import signal, submitit
from snakemake_executor_plugin_submitit import job
job._CHECKPOINT_SECONDS, job._EARLY_SECONDS, job._LATE_SECONDS, job._START_SECONDS = {patience}, 0.5, 0.3, 0.5
command = job.JobCommand({command!r}, minutes={minutes})
def note(*_):
    print(command.checkpoint().function.command == command.command, flush=True)
    {then}
signal.signal(signal.SIGUSR2, note)
print(command(), flush=True)
"""
    submitit = {"EXECUTOR": "local", "FOLDER": str(folder), "LOCAL_JOB_ID": "7", "LOCAL_GLOBALID": "0"}
    environment = {**os.environ, **{f"SUBMITIT_{name}": value for name, value in submitit.items()}}
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    while not (folder / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    return process


def heeding(folder: Path) -> str:
    """Return a command that ends when it is asked for a checkpoint."""
    lines = ["import signal, time", "signal.signal(signal.SIGUSR2, lambda *_: exit(9))", "open('started', 'w')"]
    (folder / "program.py").write_text("\n".join([*lines, "time.sleep(30)", ""]))
    return f"{shlex.quote(sys.executable)} -c 'import program'"


def output(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=30)[0]


def test_a_command_returns_its_exit_code() -> None:
    assert JobCommand("exit 3")() == 3


def test_on_the_checkpoint_signal_the_command_ends_and_is_to_run_again(tmp_path: Path) -> None:
    """Shells and Snakemake around it outlive the signal."""
    process = job(heeding(tmp_path), tmp_path)
    process.send_signal(signal.SIGUSR2)
    assert output(process).split() == ["True", "9"]
    assert JobFiles(tmp_path, "7").exit_code() is None


@pytest.mark.parametrize("minutes", [60, 0.05])
def test_what_succeeds_while_a_checkpoint_is_waited_for_does_not_run_again(minutes: float, tmp_path: Path) -> None:
    process = job(f"{IGNORES}; sleep 1", tmp_path, minutes)
    process.send_signal(signal.SIGUSR2)
    assert output(process) == ""
    assert process.returncode == 0
    assert JobFiles(tmp_path, "7").exit_code() == 0


@pytest.mark.parametrize(("minutes", "requeued"), [(60, True), (0.01, False)])
def test_a_command_without_a_checkpoint_is_not_requeued_at_its_time_limit(
    minutes: float, requeued: bool, tmp_path: Path
) -> None:
    """But where it is preempted long before, it is."""
    process = job(f"{IGNORES}; sleep 30", tmp_path, minutes, patience=0.3)
    process.send_signal(signal.SIGUSR2)
    assert ("True" in output(process)) == requeued
    files = JobFiles(tmp_path, "7")
    assert (files.exit_code() is None) == requeued
    assert (ending_of(files, None) is Ending.OUT_OF_TIME) != requeued


def test_a_command_that_ignores_the_signal_may_use_all_of_its_time(tmp_path: Path) -> None:
    process = job(f"{IGNORES}; sleep 30", tmp_path, minutes=3 / 60, patience=0.1)
    started = (tmp_path / "started").stat().st_mtime
    time.sleep(max(0, started + 2.4 - time.time()))
    process.send_signal(signal.SIGUSR2)
    output(process)
    assert time.time() - started > 3
    assert ending_of(JobFiles(tmp_path, "7"), None) is Ending.OUT_OF_TIME


@pytest.mark.parametrize("asked_before", [False, True])
def test_what_the_time_limit_ends_says_so_itself(asked_before: bool, tmp_path: Path) -> None:
    """Whether or not Slurm has announced the limit, and also where Slurm kills the job while its command still ends."""
    process = job(f"trap '' TERM USR2; {IGNORES}; while true; do sleep 0.2; done", tmp_path, minutes=0.005)
    if asked_before:
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    child = subprocess.run(["pgrep", "--parent", str(process.pid)], capture_output=True, text=True).stdout.strip()
    process.kill()
    if child:
        os.killpg(int(child), signal.SIGKILL)
    assert "True" not in output(process)
    assert ending_of(JobFiles(tmp_path, "7"), None) is Ending.OUT_OF_TIME
    assert ending_of(JobFiles(tmp_path, "7"), JobState("FAILED", terminated=True)) is Ending.OUT_OF_TIME


def test_a_requeued_command_leaves_no_result(tmp_path: Path) -> None:
    """Slurm ends what it requeues by SIGTERM; the limit is near, but another head process may look at the job."""
    process = job(heeding(tmp_path), tmp_path, minutes=0.005, then="signal.raise_signal(signal.SIGTERM)")
    process.send_signal(signal.SIGUSR2)
    assert output(process) == "True\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert JobFiles(tmp_path, "7").ended_at() is None


def test_a_canceled_command_leaves_no_process_and_no_result(tmp_path: Path) -> None:
    # This test's own, also where another run of it goes on beside.
    seconds = f"9876{os.getpid()}"
    process = job(f"touch started; sleep {seconds} & sleep {seconds}", tmp_path)

    def sleeping() -> list[str]:
        return subprocess.run(["pgrep", "-f", f"^sleep {seconds}$"], capture_output=True, text=True).stdout.split()

    deadline = time.monotonic() + 30
    while len(sleeping()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert output(process) == ""
    assert process.returncode == 128 + signal.SIGTERM
    assert JobFiles(tmp_path, "7").exit_code() is None
    assert sleeping() == []


def test_what_a_requeued_job_took_is_all_that_it_took(tmp_path: Path) -> None:
    first = JobCommand(f"touch {tmp_path / 'started'}; sleep 1; exit 9")
    first()
    again: Any = first.checkpoint().function
    again.command = "true"
    code = again()
    assert code == 0
    assert 1 < 60 * code.minutes < 10
    assert code.mb > 0
