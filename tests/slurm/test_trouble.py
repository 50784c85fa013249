"""Disks and environments that fail under a real Slurm: the culprit is named, and mended it goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import Disk, small_disk, small_quota
from tests.slurm.runs import head, messages, sbatch_calls, stand_in, trivial

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture
def disk(folder: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A disk of a few kilobytes, or one that a parameter makes."""
    with getattr(request, "param", small_disk)(folder / "disk", 4 << 20) as disk:
        yield disk


FULL = pytest.mark.parametrize("disk", [small_disk, small_quota], indirect=True)


@FULL
def test_a_full_disk_on_the_head(disk: Disk, folder: Path) -> None:
    disk.fill(left=1 << 13)
    process = trivial(folder, "--submitit-logdir", disk.path / "logs", jobs=4)
    assert process.wait(timeout=60) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if disk.said in line]
    assert len(lines) == 1, messages(folder)
    assert f"the head process cannot write {disk.path}" in lines[0]
    assert "make room" in lines[0]
    assert "Slurm refused" not in messages(folder)
    assert "Traceback" not in messages(folder)
    assert sbatch_calls(folder) == 0
    assert list(disk.path.rglob("*.pkl")) == []
    disk.free()
    assert trivial(folder, "--submitit-logdir", disk.path / "logs", jobs=4).wait(timeout=120) == 0, messages(folder)


@FULL
@pytest.mark.parametrize("what", ["output", "log"])
def test_a_disk_that_fills_up_inside_a_job(what: str, disk: Disk, folder: Path) -> None:
    """With what the job makes, or where its log and its result are to be."""
    output = disk.path / "out" / "a.bin" if what == "output" else folder / "a.bin"
    fills = "{output}" if what == "output" else f"{disk.path}/ballast || true; touch {{output}}"
    (folder / "Snakefile").write_text(
        f'rule fill:\n    output: "{output}"\n    resources: mem_mb=100, runtime=5\n'
        f'    shell: "head -c $(cat bytes) /dev/zero > {fills}"\n'
    )
    (folder / "empty.yaml").write_text("name: fill\n")
    (folder / "bytes").write_text(str(2 * disk.size))
    logs = ["--submitit-logdir", disk.path / "logs"] if what == "log" else []
    command = ["--configfile", "empty.yaml", "--retries", "0", *logs]
    process = head(folder, *command)
    assert process.wait(timeout=60) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if "message: slurm job" in line]
    assert len(lines) == 1
    assert f"{disk.said}. The end of " in lines[0]
    assert not output.exists()
    disk.free()
    (folder / "bytes").write_text("2")
    assert head(folder, *command).wait(timeout=60) == 0, messages(folder)
    if what == "log":
        assert (disk.path / "logs" / "efficiency.tsv").read_text().startswith("rule\t")
        assert f"{disk.path}/logs/efficiency.tsv cannot be written ({disk.said})" in messages(folder)


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
    name: str, what: str, said: str | None, disk: Disk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named where a job fails for want of it."""
    place = Path("/proc/nowhere") if what == "missing" else disk.path
    if what == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    elif what == "full":
        disk.fill(left=1 << 14)
    # Where the job is submitted, all is well: a site's prolog sets such things on nodes.
    prolog = folder / "prolog.sh"
    prolog.write_text(f"#!/bin/sh\necho export {name}={place}\n")
    prolog.chmod(0o755)
    monkeypatch.setenv("SLURM_TASK_PROLOG", str(prolog))
    options = ["--submitit-setup", f"head -c 65536 /dev/zero > ${name}/file", "--retries", "0"]
    process = trivial(folder, *options, jobs=1)
    assert process.wait(timeout=60) == (1 if said else 0), messages(folder)
    assert said is None or f"{name} ({place}) cannot be written: {said}" in messages(folder)


def test_a_log_folder_that_can_only_be_read(disk: Disk, folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    process = trivial(folder, "--submitit-logdir", disk.path / "logs")
    assert process.wait(timeout=60) == 1, messages(folder)
    assert f"the head process cannot write {disk.path}/logs" in messages(folder)
    assert "Read-only file system. To go on, choose a --submitit-logdir elsewhere" in messages(folder)
    assert sbatch_calls(folder) == 0


def test_an_environment_that_a_node_does_not_see(folder: Path) -> None:
    """Its disk is not mounted there: the job's Python cannot be started."""
    stand_in(folder, "sbatch", 'sed -i "/^srun/s#/[^ ]*/python[^ ]*#/nowhere/bin/python#" ${!#}\nexec $real "$@"')
    assert trivial(folder, "--retries", "0", jobs=1).wait(timeout=60) == 1, messages(folder)
    said = "the node cannot run /nowhere/bin/python (No such file or directory): is the environment on a shared file"
    assert said in messages(folder)
