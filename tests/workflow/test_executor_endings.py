"""How jobs end, what is asked for after it, and what sbatch leaves behind."""

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import submitit
from snakemake_executor_plugin_submitit import endings
from snakemake_executor_plugin_submitit.attempts import Attempts
from snakemake_executor_plugin_submitit.clusters import JobState, Slurm
from snakemake_executor_plugin_submitit.endings import Ending, Watch, ending_of
from snakemake_executor_plugin_submitit.job import LIMIT_REACHED, JobCommand
from snakemake_executor_plugin_submitit.results import JobFiles
from snakemake_executor_plugin_submitit.sbatch import Sbatch
from submitit.core.utils import FailedSubmissionError

from tests.disks import small_disk

CANNOT_REQUEUE = (
    "Traceback\nCalledProcessError: Command '['scontrol', 'requeue', '7_1']' returned non-zero exit status 1."
)
TOO_OFTEN = "Traceback\nUncompletedJobError: Job not requeued because: timed-out too many times."


@pytest.mark.parametrize(
    ("result", "state", "ending"),
    [
        (("success", 0), None, Ending.SUCCEEDED),
        (("success", 0), JobState("NODE_FAIL"), Ending.SUCCEEDED),
        (("success", 1), JobState("COMPLETED"), Ending.FAILED),
        (("success", 1), JobState("OUT_OF_MEMORY"), Ending.OUT_OF_MEMORY),
        (("success", 1), JobState("PREEMPTED"), Ending.INTERRUPTED),
        (("error", CANNOT_REQUEUE), JobState("FAILED"), Ending.INTERRUPTED),
        (("error", LIMIT_REACHED), JobState("FAILED"), Ending.OUT_OF_TIME),
        (("error", LIMIT_REACHED), JobState("PREEMPTED"), Ending.INTERRUPTED),
        (("error", TOO_OFTEN), JobState("FAILED"), Ending.OUT_OF_TIME),
        (None, JobState("PREEMPTED"), Ending.INTERRUPTED),
        (None, JobState("NODE_FAIL"), Ending.INTERRUPTED),
        (None, JobState("FAILED", terminated=True), Ending.INTERRUPTED),
        (None, JobState("FAILED"), Ending.FAILED),
        (None, JobState("CANCELLED"), Ending.FAILED),
        (None, JobState("TIMEOUT"), Ending.OUT_OF_TIME),
        (None, JobState("OUT_OF_MEMORY"), Ending.OUT_OF_MEMORY),
        (None, JobState("COMPLETED"), Ending.SUCCEEDED),
        (None, None, Ending.FAILED),
    ],
)
def test_endings(result: object, state: JobState | None, ending: Ending, tmp_path: Path) -> None:
    if result:
        (tmp_path / "7_1_0_result.pkl").write_bytes(cloudpickle.dumps(result))
    assert ending_of(JobFiles(tmp_path, "7_1"), state) is ending


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=69.0. Some of your", Ending.OUT_OF_MEMORY),
        ("slurmstepd-n7: error: Detected 3 oom_kill events in StepId=7.0. Some of", Ending.OUT_OF_MEMORY),
        ("slurmstepd-node3: error: StepId=71.0 exceeded memory limit (675 > 419), being", Ending.OUT_OF_MEMORY),
        ("slurmstepd: error: Exceeded job memory limit", Ending.OUT_OF_MEMORY),
        ("srun: error: node3: task 0: Out Of Memory", Ending.OUT_OF_MEMORY),
        ("srun: error: node3: task 0: Exited with exit code 1", Ending.FAILED),
        ("torch.OutOfMemoryError: CUDA out of memory", Ending.FAILED),
    ],
)
def test_memory_that_ran_out_in_a_step_is_told_by_the_log(line: str, ending: Ending, tmp_path: Path) -> None:
    """Slurm says FAILED of the job itself."""
    (tmp_path / "7_0_log.err").write_text(f"a line\n{line}\n")
    for result in (None, ("success", 1)):
        if result:
            (tmp_path / "7_0_result.pkl").write_bytes(cloudpickle.dumps(result))
        assert ending_of(JobFiles(tmp_path, "7"), JobState("FAILED")) is ending
    (tmp_path / "7_0_result.pkl").write_bytes(cloudpickle.dumps(("success", 0)))
    assert ending_of(JobFiles(tmp_path, "7"), JobState("COMPLETED")) is Ending.SUCCEEDED


def test_what_slurm_did_not_let_begin_is_told_by_the_log(tmp_path: Path) -> None:
    line = "srun: error: Unable to create step for job 7: Invalid generic resource (gres) specification\n"
    (tmp_path / "7_0_log.err").write_text(line)
    assert ending_of(JobFiles(tmp_path, "7"), JobState("FAILED")) is Ending.UNSTARTED
    (tmp_path / "7_0_result.pkl").write_bytes(cloudpickle.dumps(("success", 1)))
    assert ending_of(JobFiles(tmp_path, "7"), JobState("FAILED")) is Ending.FAILED, "its command has run"


@pytest.mark.parametrize(
    ("state", "known", "seconds"),
    [
        ("FAILED", {}, 1),
        (None, {}, 30),
        ("COMPLETED", {}, 300),
        (None, {"7": JobState("COMPLETED")}, 300),
        (None, {"7": JobState("PREEMPTED")}, 1),
    ],
)
def test_how_long_a_result_is_waited_for(
    state: str | None, known: dict[str, JobState], seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is not, what nobody knows of for the latency, what is complete for long; accounting is asked once."""
    now = 0
    monkeypatch.setattr(endings, "time", SimpleNamespace(monotonic=lambda: now))
    asked: list[object] = []

    def ask(jobs: Any) -> dict[str, JobState]:
        if jobs:
            asked.append(list(jobs))
        return known if jobs else {}

    watch, files = Watch(ask, 30, lambda message: None), JobFiles(tmp_path, "7")
    watch.see(["7"], {"7": JobState("RUNNING")})
    assert not watch.has_ended("7", files)
    states = {"7": JobState(state)} if state else {}
    watch.see(["7"], states)
    while not watch.has_ended("7", files):
        now += 1
        assert now <= seconds
        watch.see(["7"], states)
    assert now == seconds
    assert asked == ([] if state else [["7"]])


class Job:
    """A job as Snakemake keeps it: resources follow from the attempt."""

    def __init__(self) -> None:
        self.attempt = 1

    @property
    def resources(self) -> dict[str, int]:
        return {"mem_mb": 100 * self.attempt, "runtime": 10 * self.attempt, "gpu": 1}


def test_only_what_ran_out_is_asked_for_again_and_more_of_it() -> None:
    attempts, job = Attempts(), Job()
    found = []
    for ending in (Ending.FAILED, Ending.OUT_OF_MEMORY, Ending.FAILED, Ending.OUT_OF_TIME, Ending.OUT_OF_MEMORY, None):
        resources = attempts.resources(job, "key")
        found.append((resources["mem_mb"], resources["runtime"]))
        if ending:
            attempts.note("key", ending)
        job.attempt += 1
    assert found == [(100, 10), (100, 10), (200, 10), (200, 10), (200, 20), (300, 20)]
    assert job.attempt == 7


def stand_in(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\necho call >> {folder}/{name}.calls\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    stand_in(folder, "srun", "exit 0")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_the_queue_says_where_and_by_which_signal_a_job_has_ended(programs: Path) -> None:
    stand_in(programs, "squeue", "printf '7_0|FAILED|NonZeroExitCode|36608|node1|\\n7_1|FAILED|x|256|node2|\\n'")
    assert Slurm().states(dict.fromkeys(["7_0", "7_1"], programs)) == {
        "7_0": JobState("FAILED", "NonZeroExitCode", terminated=True, node="node1"),
        "7_1": JobState("FAILED", "x", node="node2"),
    }


@pytest.mark.parametrize(("kind", "calls"), [("slurmdbd", 1), ("none", 0)])
def test_accounting_is_asked_only_where_there_is_any(kind: str, calls: int, programs: Path) -> None:
    stand_in(programs, "scontrol", f"echo 'AccountingStorageType   = accounting_storage/{kind}'")
    stand_in(programs, "sacct", "printf '7_0|CANCELLED by 0|0:15|node1\\n7_1|RUNNING|0:0|node2\\n'")
    states = Slurm().ended(["7_0", "7_1"])
    assert states == ({"7_0": JobState("CANCELLED", terminated=True, node="node1")} if calls else {})
    assert (programs / "sacct.calls").exists() == bool(calls)


def test_accounting_that_fails_is_not_needed(programs: Path) -> None:
    stand_in(programs, "scontrol", "echo 'AccountingStorageType   = accounting_storage/slurmdbd'")
    stand_in(programs, "sacct", "exit 1")
    assert Slurm().ended(["7_0"]) == {}


def test_what_could_not_be_canceled_is_returned(programs: Path) -> None:
    jobs = dict.fromkeys(["7_0", "7_1"], programs)
    stand_in(programs, "scancel", "exit 1")
    stand_in(programs, "squeue", "exit 1")
    assert Slurm().cancel(jobs) == ["7_0", "7_1"]
    stand_in(programs, "squeue", "printf '7_0|COMPLETED|None\\n7_1|RUNNING|None\\n'")
    assert Slurm().cancel(jobs) == ["7_1"]
    stand_in(programs, "scancel", "exit 0")
    assert Slurm().cancel(jobs) == []


def executor_in(folder: Path) -> Any:
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(time=5, job_name="one")
    return executor


def submit(sbatch: Sbatch, folder: Path, number: int = 2) -> list[str]:
    ids: list[str] = []
    sbatch.submit(executor_in(folder), [JobCommand("true") for _ in range(number)], ids.extend)
    return ids


@pytest.mark.parametrize(("number", "ids"), [(1, ["12"]), (2, ["12_0", "12_1"])])
def test_what_is_submitted_finds_its_command(number: int, ids: list[str], programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "sbatch", f"cp $1 {tmp_path}/script; echo 'Submitted batch job 12'")
    folder = tmp_path / "logs"
    folder.mkdir()
    assert submit(Sbatch(), folder, number) == ids
    assert sorted(path.name for path in folder.iterdir()) == [f"{job}_submitted.pkl" for job in ids]
    assert ("#SBATCH --array=0-1" in (tmp_path / "script").read_text()) == (number == 2)


def test_what_is_refused_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "sbatch", "echo 'sbatch: error: Invalid qos specification' >&2; exit 1")
    folder = tmp_path / "logs"
    folder.mkdir()
    with pytest.raises(FailedSubmissionError, match="Invalid qos"):
        submit(Sbatch(), folder)
    assert list(folder.iterdir()) == []


def test_sbatch_is_not_left_to_retry_by_itself(programs: Path, tmp_path: Path) -> None:
    stand_in(
        programs, "sbatch", "echo 'Slurm temporarily unable to accept job, sleeping and retrying.' >&2; exec sleep 60"
    )
    started = time.monotonic()
    with pytest.raises(FailedSubmissionError, match="temporarily unable"):
        submit(Sbatch(), tmp_path)
    assert time.monotonic() - started < 10


def test_what_rules_ask_for_comes_before_variables_and_an_outer_job(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(programs, "sbatch", f"env > {tmp_path}/environment; echo 'Submitted batch job 12'")
    for name in (
        "SBATCH_TIMELIMIT",
        "SBATCH_PARTITION",
        "SBATCH_ACCOUNT",
        "SBATCH_QOS",
        "SBATCH_CONSTRAINT",
        "SBATCH_RESERVATION",
        "SLURM_JOB_ID",
        "SLURM_MEM_PER_CPU",
        "SLURM_CONF",
    ):
        monkeypatch.setenv(name, "1")
    executor = executor_in(tmp_path)
    executor.update_parameters(partition="gpu")
    Sbatch().submit(executor, [JobCommand("true")], lambda ids: None)
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    # Nobody else names these, and the configuration says where the cluster is.
    defaults = {"SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_CONSTRAINT", "SBATCH_RESERVATION"}
    assert {name for name in names if name.startswith(("SBATCH_", "SLURM_"))} == {*defaults, "SLURM_CONF"}
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("SLURM_TASK_PROLOG", "1")
    asked = {"account": "mine", "reservation": "ours"}
    executor.update_parameters(qos="long", constraint="a100", additional_parameters=asked)
    Sbatch().submit(executor, [JobCommand("true")], lambda ids: None)
    environment = (tmp_path / "environment").read_text()
    assert "SBATCH_" not in environment
    # Outside of jobs, what srun reads is somebody's own.
    assert "SLURM_TASK_PROLOG" in environment


def test_a_call_under_way_can_be_ended(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "sbatch", f"touch {tmp_path}/called; exec sleep 60")
    sbatch = Sbatch()
    errors: list[Exception] = []

    def run() -> None:
        try:
            submit(sbatch, tmp_path)
        except FailedSubmissionError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not (tmp_path / "called").exists():
        time.sleep(0.02)
    sbatch.stop()
    thread.join(timeout=10)
    assert len(errors) == 1
    with pytest.raises(FailedSubmissionError):
        submit(sbatch, tmp_path)
    assert (programs / "sbatch.calls").read_text() == "call\n"


def test_what_slurm_took_without_an_answer_is_canceled(programs: Path, tmp_path: Path) -> None:
    stand_in(
        programs,
        "sbatch",
        f"echo \"12|$1\" > {tmp_path}/queue; echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1",
    )
    stand_in(programs, "scancel", f"echo $* > {tmp_path}/canceled")
    stand_in(programs, "squeue", "exit 1")
    sbatch = Sbatch()
    assert sbatch.take_back()
    with pytest.raises(FailedSubmissionError):
        submit(sbatch, tmp_path)
    assert not sbatch.take_back()
    stand_in(programs, "squeue", f"echo '11|/elsewhere.sh'; cat {tmp_path}/queue")
    assert sbatch.take_back()
    assert (tmp_path / "canceled").read_text() == "12\n"
    (programs / "squeue.calls").unlink()
    assert sbatch.take_back()
    assert not (programs / "squeue.calls").exists()


def test_a_full_disk_leaves_nothing_half_written(programs: Path, tmp_path: Path) -> None:
    stand_in(programs, "sbatch", "echo 'Submitted batch job 12'")
    command = JobCommand("x" * 10**6)
    with small_disk(tmp_path / "full", 64 << 10) as disk:
        with pytest.raises(OSError, match=disk.said):
            Sbatch().submit(executor_in(disk.path), [command], lambda ids: None)
        assert list(disk.path.iterdir()) == []
    assert not (programs / "sbatch.calls").exists()
