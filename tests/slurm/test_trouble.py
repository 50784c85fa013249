"""Disks and environments that fail under a real Slurm: the culprit is named, and mended it goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.runs import head, messages, sbatch_calls, trivial

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


def test_a_home_that_a_node_does_not_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = trivial(folder, "--submitit-setup", "[ -d $HOME ]", "--retries", "0", jobs=1)
    assert process.wait(timeout=60) == 0, messages(folder)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    process = trivial(folder, "--submitit-setup", "[ -d $HOME ]", "--retries", "0", "--forceall", jobs=1)
    assert process.wait(timeout=60) == 1, messages(folder)
    assert "HOME (/proc/nowhere) cannot be written: No such file or directory" in messages(folder)
