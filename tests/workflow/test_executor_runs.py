"""The executor on this machine: local and debug clusters, Ctrl-C, and mistakes that end before anything runs."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.runs import processes_in

WORKFLOW = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["jobs"])))

rule one:
    output: "out/{i}.txt"
    resources: mem_mb=100, runtime=5
    params: seconds=config["seconds"]
    shell: "touch started_{wildcards.i}; sleep {config[seconds]}; [ {config[seconds]} != 0.1 ] || echo done > {output}"

rule broken:
    output: "broken.txt"
    resources: mem_mb=100
    shell: "echo what went wrong >&2; exit 4"
"""

WORKFLOW_WITH_INPUT = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["jobs"])))

rule one:
    input: "seconds.txt"
    output: "out/{i}.txt"
    resources: mem_mb=100, runtime=5
    shell: "cp {input} started_{wildcards.i}; sleep $(cat {input}); cp started_{wildcards.i} {output}"
"""
# Every job leaves what it was asked for.
WORKFLOW_WITH_SETTING = WORKFLOW.replace("[ {config[seconds]} != 0.1 ] || echo done", "echo {config[seconds]}")
assert WORKFLOW_WITH_SETTING != WORKFLOW
OUTDATED = "an earlier run make the same files from other settings or inputs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small workflow."""
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    return tmp_path


def snakemake(folder: Path, *arguments: str, seconds: str = "0.1", jobs: int = 2) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "4", "--latency-wait", "5"]
    config = ["--config", f"seconds={seconds}", f"jobs={jobs}"]
    return subprocess.Popen(
        [*program, *arguments, *config], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str]:
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def wait_until_started(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("started_*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_the_same_path_without_slurm(cluster: str, folder: Path) -> None:
    code, output = finish(snakemake(folder, "--submitit-cluster", cluster, "--submitit-logdir", "logs/{config[jobs]}"))
    assert code == 0, output
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["0.txt", "1.txt"]
    assert "Submitted 2 jobs of one" in output
    # Logs of what succeeded are gone.
    assert [path for path in (folder / "logs" / "2").rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_a_job_that_fails_is_reported_with_its_log(cluster: str, folder: Path) -> None:
    code, output = finish(snakemake(folder, "--submitit-cluster", cluster, "broken.txt"))
    assert code == 1
    assert "failed with exit code 1" in output
    if cluster == "local":
        assert "what went wrong" in output
        assert len(list((folder / ".snakemake/submitit/logs").rglob("*_log.err"))) == 1


def test_a_second_head_process_in_the_folder_is_refused(folder: Path) -> None:
    lock = folder / ".snakemake/submitit/lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, output = finish(snakemake(folder, "--submitit-cluster", "local"))
    assert code == 1
    assert "another Snakemake sends jobs to the cluster from this folder: wait until it has ended" in output
    assert not list(folder.glob("started_*"))
    assert finish(snakemake(folder, "--submitit-cluster", "local"))[0] == 0


@pytest.mark.slow
def test_ctrl_c_on_local_leaves_no_process_behind(folder: Path) -> None:
    process = snakemake(folder, "--submitit-cluster", "local", seconds="300")
    wait_until_started(folder)
    process.send_signal(signal.SIGINT)
    code, output = finish(process, timeout=40)
    assert code != 0, output
    deadline = time.monotonic() + 5
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.mark.slow
def test_jobs_of_an_earlier_run_do_not_come_after_those_of_other_settings(folder: Path) -> None:
    process = snakemake(folder, "--submitit-cluster", "local", seconds="300")
    wait_until_started(folder)
    process.kill()
    # Its output stays open: its jobs write there too.
    process.wait()
    assert processes_in(folder)
    code, output = finish(snakemake(folder, "--submitit-cluster", "local", "--nolock"))
    assert code == 0, output
    assert f"2 local jobs of {OUTDATED}, and are canceled" in output
    assert [path.read_text() for path in (folder / "out").iterdir()] == ["done\n", "done\n"]
    assert processes_in(folder) == []


def killed_and_restarted(folder: Path, snakefile: str, seconds: str, change: Callable[[Path], object]) -> str:
    """Return what a head process says that finds jobs of one that was killed, whose input has changed meanwhile."""
    (folder / "Snakefile").write_text(snakefile)
    given = folder / "seconds.txt"
    given.write_text(seconds)
    process = snakemake(folder, "--submitit-cluster", "local")
    wait_until_started(folder)
    process.kill()
    process.wait()
    change(given)
    code, output = finish(snakemake(folder, "--submitit-cluster", "local", "--nolock"))
    assert code == 0, output
    return output


@pytest.mark.slow
def test_jobs_of_an_earlier_run_do_not_stand_for_those_of_other_inputs(folder: Path) -> None:
    output = killed_and_restarted(folder, WORKFLOW_WITH_INPUT, "300", lambda path: path.write_text("1"))
    assert f"2 local jobs of {OUTDATED}, and are canceled" in output
    assert [path.read_text() for path in (folder / "out").iterdir()] == ["1", "1"]


@pytest.mark.slow
def test_jobs_of_an_earlier_run_stand_for_themselves_where_only_an_ancient_input_is_newer(folder: Path) -> None:
    marked = WORKFLOW_WITH_INPUT.replace('"seconds.txt"', 'ancient("seconds.txt")')
    output = killed_and_restarted(folder, marked, "8", Path.touch)
    assert output.count("of an earlier run.") == 2


def made(folder: Path, seconds: str, *arguments: str) -> tuple[list[str], bool]:
    """Return what files hold after a run with a setting, and whether there was nothing to be done."""
    code, output = finish(snakemake(folder, "--submitit-cluster", "local", "--nolock", *arguments, seconds=seconds))
    assert code == 0, output
    return [path.read_text().strip() for path in sorted((folder / "out").iterdir())], "Nothing to be done" in output


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, "0.1"], ids=["made_first", "made_again"])
def test_what_ended_while_there_was_no_head_process_stands_for_its_own_settings(
    before: str | None, folder: Path
) -> None:
    (folder / "Snakefile").write_text(WORKFLOW_WITH_SETTING)
    if before:
        made(folder, before)
        for path in folder.glob("started_*"):
            path.unlink()
    process = snakemake(folder, "--submitit-cluster", "local", seconds="3")
    wait_until_started(folder)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while processes_in(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert made(folder, "3") == (["3", "3"], True)
    assert made(folder, "0.1") == (["0.1", "0.1"], False)


@pytest.mark.slow
def test_files_of_before_do_not_stand_for_jobs_that_never_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "Snakefile").write_text(WORKFLOW_WITH_SETTING)
    made(folder, "0.1")
    with monkeypatch.context() as context:
        put_slurm(folder, context, sbatch="echo Submitted batch job 7", squeue="echo '7_[0-1]|PENDING|Priority||'")
        process = snakemake(folder, seconds="0.2")
        deadline = time.monotonic() + 60
        while "7_1" not in (read := ledger(folder)):
            assert time.monotonic() < deadline, read
            time.sleep(0.1)
        # The records are written right after the ledger.
        time.sleep(1)
        process.kill()
        process.wait()
    assert made(folder, "0.2", "--rerun-incomplete") == (["0.2", "0.2"], False)


def ledger(folder: Path) -> str:
    path = folder / ".snakemake/submitit/ledger.jsonl"
    return path.read_text() if path.exists() else ""


def test_no_sbatch_on_the_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    code, output = finish(snakemake(folder))
    assert code == 1
    assert "there is no sbatch on this machine" in output
    assert "Traceback" not in output


def test_a_log_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").touch()
    code, output = finish(snakemake(folder, "--submitit-cluster", "local", "--submitit-logdir", "file/logs"))
    assert code == 1
    assert f"the head process cannot write {folder}/file/logs" in output
    assert "choose another --submitit-logdir" in output
    assert "Traceback" not in output


def put_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, **lines: str) -> None:
    """Put commands on the path that stand in for Slurm's."""
    programs = folder / "bin"
    programs.mkdir()
    for name, line in {"squeue": "exit 0", "scancel": "exit 0", "srun": "exit 0", **lines}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.slow
def test_a_refused_submission_ends_the_workflow_with_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_slurm(folder, monkeypatch, sbatch="echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    code, output = finish(snakemake(folder))
    assert code == 1
    assert "Slurm refused a job (5 min, 1 cpu, 100 MB): invalid partition specified: nope. To mend it" in output
    assert "Traceback" not in output
    assert processes_in(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(("setup", "code"), [("touch one\n# what for\ntouch two\n", 0), ("false\ntouch two\n", 1)])
def test_each_line_of_the_setup_counts(setup: str, code: int, folder: Path) -> None:
    local = ("--submitit-cluster", "local", "--submitit-setup", setup)
    found, output = finish(snakemake(folder, *local, jobs=1))
    assert found == code, output
    assert (folder / "one").exists() == (folder / "two").exists() == (folder / "out/0.txt").exists() == (code == 0)
