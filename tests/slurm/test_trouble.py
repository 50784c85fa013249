"""Disks and environments that fail under a real Slurm: the culprit is named, and mended it goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.runs import head, messages, sbatch_calls, stand_in, trivial

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few kilobytes for the jobs' logs."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_on_the_head(small_disk: Path, folder: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**20 - 2**14))
    process = trivial(folder, "--submitit-logdir", small_disk / "logs", jobs=8)
    assert process.wait(timeout=60) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if "No space left on device" in line]
    assert len(lines) == 1, messages(folder)
    assert f"the head process cannot write {small_disk}" in lines[0]
    assert "make room on that disk" in lines[0]
    assert "Slurm refused" not in messages(folder)
    assert "Traceback" not in messages(folder)
    assert sbatch_calls(folder) == 0
    assert list(small_disk.rglob("*.pkl")) == []
    ballast.unlink()
    assert trivial(folder, "--submitit-logdir", small_disk / "logs", jobs=8).wait(timeout=120) == 0, messages(folder)


@pytest.mark.parametrize("what", ["output", "log"])
def test_a_disk_that_fills_up_inside_a_job(what: str, small_disk: Path, folder: Path) -> None:
    """With what the job makes, or where its log and its result are to be."""
    ballast, output = small_disk / "ballast", small_disk / "out" / "a.bin"
    target = "{output}" if what == "output" else f"{ballast}"
    (folder / "Snakefile").write_text(
        f'rule fill:\n    output: "{output}"\n    resources: mem_mb=100, runtime=5\n'
        f'    shell: "head -c $(cat bytes) /dev/zero > {target} || {what == "log"}; touch {{output}}"\n'
    )
    (folder / "empty.yaml").write_text("name: fill\n")
    (folder / "bytes").write_text("2000000")
    logs = ["--submitit-logdir", small_disk / "logs"] if what == "log" else []
    command = ["--configfile", "empty.yaml", "--retries", "0", *logs]
    process = head(folder, *command)
    assert process.wait(timeout=60) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if "message: slurm job" in line]
    assert len(lines) == 1
    assert "No space left on device. The end of " in lines[0]
    assert not output.exists()
    ballast.unlink(missing_ok=True)
    (folder / "bytes").write_text("2")
    assert head(folder, *command).wait(timeout=60) == 0, messages(folder)
    if what == "log":
        assert (small_disk / "logs" / "efficiency.tsv").read_text().startswith("rule\t")
        assert f"{small_disk}/logs/efficiency.tsv cannot be written (No space left on device)" in messages(folder)


def test_what_a_command_says_of_its_quota(folder: Path) -> None:
    (folder / "copy.sh").write_text("echo \"cp: error writing '/data/x': Disk quota exceeded\" >&2; exit 1\n")
    (folder / "Snakefile").write_text('rule copy:\n    output: "x"\n    shell: "bash copy.sh"\n')
    (folder / "empty.yaml").write_text("name: copy\n")
    assert head(folder, "--configfile", "empty.yaml", "--retries", "0").wait(timeout=60) == 1, messages(folder)
    assert "cp: error writing '/data/x': Disk quota exceeded. The end of " in messages(folder)


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("HOME", "missing", "No such file or directory"),
        ("HOME", "read-only", "Read-only file system"),
        ("TMPDIR", "full", "No space left on device"),
        # Slurm itself takes /tmp instead.
        ("TMPDIR", "missing", None),
        ("TMPDIR", "read-only", None),
    ],
)
def test_a_folder_that_a_node_lacks_or_cannot_write(
    name: str, what: str, said: str | None, small_disk: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named where a job fails for want of it."""
    place = Path("/proc/nowhere") if what == "missing" else small_disk
    if what == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    elif what == "full":
        (small_disk / "ballast").write_bytes(bytes(2**20 - 2**14))
    # Where the job is submitted, all is well: a site's prolog sets such things on nodes.
    prolog = folder / "prolog.sh"
    prolog.write_text(f"#!/bin/sh\necho export {name}={place}\n")
    prolog.chmod(0o755)
    monkeypatch.setenv("SLURM_TASK_PROLOG", str(prolog))
    options = ["--submitit-setup", f"head -c 65536 /dev/zero > ${name}/file", "--retries", "0"]
    process = trivial(folder, *options, jobs=1)
    assert process.wait(timeout=60) == (1 if said else 0), messages(folder)
    assert said is None or f"{name} ({place}) cannot be written: {said}" in messages(folder)


def test_a_log_folder_that_can_only_be_read(small_disk: Path, folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    process = trivial(folder, "--submitit-logdir", small_disk / "logs")
    assert process.wait(timeout=60) == 1, messages(folder)
    assert f"{small_disk}/logs: cannot be written (Read-only file system); choose another folder" in messages(folder)
    assert sbatch_calls(folder) == 0


def test_an_environment_that_a_node_does_not_see(folder: Path) -> None:
    """Its disk is not mounted there: the job's Python cannot be started."""
    stand_in(folder, "sbatch", 'sed -i "/^srun/s#/[^ ]*/python[^ ]*#/nowhere/bin/python#" ${!#}\nexec $real "$@"')
    assert trivial(folder, "--retries", "0", jobs=1).wait(timeout=60) == 1, messages(folder)
    said = "the node cannot run /nowhere/bin/python (No such file or directory): is the environment on a shared file"
    assert said in messages(folder)
