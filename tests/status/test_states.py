"""What files say of a job: done, running, waiting, failed, or unknown."""

import base64
import json
import os
import signal
from pathlib import Path

import pytest

from adamqlr.jobs.interrupts import Interrupted
from adamqlr.status.expected import Job
from adamqlr.status.states import SILENCE_SECONDS, Folder, Seen, State, look
from adamqlr.status.traces import read_traces
from adamqlr.study.names import CONFIG_NAME

NOW = 1_800_000_000.0
JOB = Job("train", "epochs/digits/adam/seeds_0-4", ("runs/epochs/digits/adam/seeds_0-4.nc",), "digits")
TABLE = Job("table", "epochs/final", ("tables/epochs/final.csv", "tables/epochs/final.md"))
CHECKPOINT = "runs/epochs/digits/adam/.seeds_0-4.nc.checkpoint"
PART = "runs/epochs/digits/adam/.seeds_0-4.nc.0-of-2.checkpoint"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "small"
    write(folder / CONFIG_NAME, "name: small\n", ago=10_000)
    lock(folder)
    return folder


def lock(folder: Path, study: str = "small", name: str = "0.output.lock") -> Path:
    """What a run does to a study."""
    path = folder.parents[1] / ".snakemake" / "locks" / name
    write(path, f"results/{study}/cubes/a.nc\nresults/{study}/study.nc\n", ago=60)
    return path


def write(path: Path, text: str = "", ago: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - ago, NOW - ago))


def mark(folder: Path, output: str, ago: float, cluster_job: str | None = None) -> None:
    """What Snakemake writes when a job starts, or is submitted; tests/workflow holds it to Snakemake's own."""
    name = base64.urlsafe_b64encode(f"results/small/{output}".encode()).decode()
    place = folder.parents[1] / ".snakemake" / "incomplete"
    path = place / name if len(name) < 200 else place / f"@{name[:199]}" / name[199:]
    write(path, json.dumps({"external_jobid": cluster_job}), ago)


def see(folder: Path, job: Job = JOB) -> Seen:
    return look([job], Folder(folder), read_traces(folder), NOW)[0]


def test_nothing_is_there(folder: Path) -> None:
    assert see(folder) == Seen(JOB, State.WAITING)


def test_outputs_are_done_when_all_are_there_and_snakemake_says_that_they_are_complete(folder: Path) -> None:
    write(folder / TABLE.outputs[0])
    assert see(folder, TABLE).state is State.WAITING
    write(folder / TABLE.outputs[1])
    write(folder / TABLE.benchmark, "s\th:m:s\n12.5\t0:00:12\n")
    assert see(folder, TABLE) == Seen(TABLE, State.DONE, seconds=12.5)
    mark(folder, TABLE.outputs[0], ago=1)
    assert see(folder, TABLE).state is State.RUNNING


@pytest.mark.parametrize("sign", [JOB.log, CHECKPOINT, PART])
def test_a_job_runs_as_long_as_it_writes(folder: Path, sign: str) -> None:
    mark(folder, JOB.outputs[0], ago=5_000)
    assert see(folder).state is State.UNKNOWN
    write(folder / sign, ago=SILENCE_SECONDS - 1)
    assert see(folder).state is State.RUNNING
    write(folder / sign, ago=SILENCE_SECONDS + 1)
    seen = see(folder)
    assert (seen.state, seen.silent_seconds) == (State.UNKNOWN, SILENCE_SECONDS + 1)


def test_a_checkpoint_alone_is_no_running_job(folder: Path) -> None:
    write(folder / CHECKPOINT)
    write(folder / JOB.log, "12:00:00 train digits/adam:  45 %, seed 1, step 7\n12:00:01 adamqlr: stopped by SIGTERM\n")
    assert see(folder) == Seen(JOB, State.WAITING, fraction=0.45)


@pytest.mark.parametrize("last_word", ["adamqlr: stopped by SIGINT; the checkpoint is written", "Aborted!"])
def test_a_job_that_was_stopped_waits_whatever_it_had_come_to(folder: Path, last_word: str) -> None:
    mark(folder, JOB.outputs[0], ago=5)
    write(folder / JOB.log, f"{last_word}\n", ago=1)
    assert see(folder).state is State.WAITING


def test_what_another_job_writes_is_no_sign_of_life(folder: Path) -> None:
    mark(folder, JOB.outputs[0], ago=5_000)
    write(folder / "runs/epochs/digits/adam/.seeds_0-49.nc.checkpoint")
    write(folder / "tuning/epochs/digits/adam/shards/.journal")
    assert see(folder).state is State.UNKNOWN


def test_a_submitted_job_waits_until_it_writes(folder: Path) -> None:
    write(folder / JOB.log, "ValueError: of an earlier attempt\n", ago=400)
    mark(folder, JOB.outputs[0], ago=300, cluster_job="123_4")
    assert see(folder) == Seen(JOB, State.WAITING, is_queued=True)
    write(folder / JOB.log, ago=1)
    assert see(folder).state is State.RUNNING


def test_markers_of_long_paths_are_read(folder: Path) -> None:
    output = f"runs/epochs/digits/{'a' * 200}/seeds_0-4.nc"
    mark(folder, output, ago=1)
    assert see(folder, JOB._replace(outputs=(output,))).state is State.RUNNING


def test_markers_of_other_studies_and_other_files_are_left_alone(folder: Path) -> None:
    mark(folder, "../other/" + JOB.outputs[0], ago=1)
    write(folder.parents[1] / ".snakemake" / "incomplete" / "no base 64!", "{")
    assert see(folder).state is State.WAITING


@pytest.mark.parametrize(
    ("line", "is_error"),
    [
        ("adamqlr: error: digits: no such file", True),
        ("Error: Missing option '--config'.", True),
        ("torch.OutOfMemoryError: CUDA out of memory.", True),
        ("AssertionError", True),
        ("12:00:00 seed 0 finished after 5 steps, 0.02 s: training loss 1, test loss 2", False),
        ("adamqlr: stopped by SIGTERM; the checkpoint is written", False),
        ("12:00:00 Error rates: 0.1", False),
    ],
)
def test_a_log_that_ends_with_an_error_is_of_a_failed_job(folder: Path, line: str, is_error: bool) -> None:
    write(folder / JOB.log, f"12:00:00 train digits/adam:  45 %, seed 1, step 7\n{line}\n")
    seen = see(folder)
    assert (seen.state, seen.why) == ((State.FAILED, line) if is_error else (State.WAITING, ""))
    mark(folder, JOB.outputs[0], ago=-1)
    assert see(folder).state is State.RUNNING, "it is tried again"


def snakemake_log(folder: Path, text: str, ago: float = 0.0) -> None:
    write(folder.parents[1] / ".snakemake" / "log" / "2026-01-01T000000.0.snakemake.log", text, ago)


STARTS = f"localrule train:\n    output: results/small/{JOB.outputs[0]}\n    log: x\n"
FAILS = f"Error in rule train:\n    message: None\n    jobid: 3\n    output: results/small/{JOB.outputs[0]}\n"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (STARTS + FAILS, State.FAILED),
        (STARTS + FAILS + STARTS, State.WAITING),
        (STARTS, State.WAITING),
        (FAILS.replace("small", "other"), State.WAITING),
    ],
)
def test_snakemakes_last_word_counts_where_the_jobs_log_names_no_error(folder: Path, text: str, state: State) -> None:
    snakemake_log(folder, text)
    assert see(folder).state is state


def test_errors_of_earlier_runs_are_not_held_against_this_one(folder: Path) -> None:
    snakemake_log(folder, STARTS + FAILS, ago=20_000)
    assert see(folder).state is State.WAITING


@pytest.mark.parametrize("unreadable", ["", "s\th:m:s\n", "s\th:m:s\nNA\t-\n"])
def test_a_benchmark_that_says_nothing_leaves_the_seconds_unknown(folder: Path, unreadable: str) -> None:
    write(folder / JOB.outputs[0])
    write(folder / JOB.benchmark, unreadable)
    assert see(folder) == Seen(JOB, State.DONE)


def test_the_lock_of_another_study_is_not_this_ones(folder: Path) -> None:
    assert read_traces(folder).locked_since == NOW - 60
    lock(folder, "smaller")
    assert read_traces(folder).locked_since is None
    lock(folder, name="1.output.lock")
    assert read_traces(folder).locked_since == NOW - 60


def test_without_a_run_nothing_is_said_to_run(folder: Path) -> None:
    lock(folder).unlink()
    mark(folder, JOB.outputs[0], ago=5_000)
    assert see(folder).state is State.WAITING, "its run has ended, and stopped it"
    write(folder / CHECKPOINT)
    assert see(folder).state is State.UNKNOWN
    mark(folder, JOB.outputs[0], ago=-1, cluster_job="123_4")
    assert see(folder) == Seen(JOB, State.WAITING)


def test_the_last_word_of_a_started_job_counts(folder: Path) -> None:
    mark(folder, JOB.outputs[0], ago=60)
    write(folder / JOB.log, f"12:00:00 train\nadamqlr: {Interrupted(signal.SIGUSR2)}\n", ago=1)
    assert see(folder).state is State.WAITING
    write(folder / JOB.log, "Traceback\nRuntimeError: broken\n", ago=1)
    assert (see(folder).state, see(folder).why) == (State.FAILED, "RuntimeError: broken")
    mark(folder, JOB.outputs[0], ago=0)
    assert see(folder).state is State.RUNNING, "it was started again, and has not written yet"
